"""How a report's page looks."""

from torchal.report.shell import BASE_CSS
from torchal.study.looks import COLOURS

_LIGHT, _DARK = (" ".join(f"--k{place}: {pair[side]};" for place, pair in enumerate(COLOURS)) for side in (0, 1))
_CLASSES = "\n".join(f".k{place} {{ color: var(--k{place}); }}" for place in range(len(COLOURS)))
# the phases of a run, each in two tones
_PHASES = (
    ("#1f4e79", "#8fb8de"),
    ("#5b84b1", "#5f8fc0"),
    ("#2f6b4f", "#8fd0a8"),
    ("#64875a", "#5fa57a"),
    ("#6b4c8a", "#c3a8e0"),
    ("#8f7aa8", "#9678bd"),
)
_TONES = [" ".join(f"--p{place}: {pair[side]};" for place, pair in enumerate(_PHASES)) for side in (0, 1)]
_STEPS = "\n".join(f".p{place} {{ background: var(--p{place}); }}" for place in range(len(_PHASES)))

CSS = (
    BASE_CSS
    + f"""\
:root {{ {_LIGHT} {_TONES[0]} --good: #d9ecf9; --bad: #fbe3d3; --heat: #0b5fa5; --level: #59616d; }}
@media screen and (prefers-color-scheme: dark) {{
  :root {{ {_DARK} {_TONES[1]} --good: #123a57; --bad: #52290f; --heat: #6fbcf7; --level: #a6adb8; }}
}}
{_CLASSES}
{_STEPS}
"""
    + """\
html { scroll-padding-top: 16px; }
body > * { max-width: 1320px; }
main { display: block; }
.answer { font-size: 1.1rem; max-width: 80ch; margin-top: 12px; }
.answer + .lead { font-size: 0.9rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 12px 0 0; padding: 0; list-style: none; }
nav a { display: inline-block; padding: 3px 0; }
h3 { margin: 20px 0 8px; font-size: 0.98rem; line-height: 1.35; overflow-wrap: anywhere; }
h4 { margin: 10px 0 6px; font-size: 0.82rem; font-weight: 400; color: var(--quiet); }
.card > p.quiet { font-size: 0.92rem; max-width: 88ch; margin-bottom: 12px; }
.sampler { display: inline-flex; align-items: center; gap: 7px; max-width: 100%; vertical-align: bottom; }
.sampler bdi { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; color: var(--text); }
.swatch { flex: none; width: 26px; height: 12px; overflow: visible; }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.line[stroke-dasharray] { stroke-linecap: butt; }
.dot { fill: currentColor; stroke: var(--card); stroke-width: 0.75; }
.band { fill: currentColor; fill-opacity: 0.1; stroke: currentColor; stroke-width: 0.75; stroke-opacity: 0.25; }
.grid { fill: none; stroke: var(--edge); }
.level { fill: none; stroke: var(--level); stroke-width: 1.25; stroke-dasharray: 1.5 3.5; stroke-linecap: round; }
.samplers {
  display: flex; flex-wrap: wrap; gap: 6px; margin: 0 0 12px; padding: 8px 0; align-items: center;
}
.samplers button {
  font: inherit; font-size: 0.88rem; line-height: 1.3; cursor: pointer; color: var(--text); background: var(--card);
  border: 1px solid var(--quiet); border-radius: 8px; padding: 5px 10px; min-height: 32px; max-width: 100%;
}
.samplers button[aria-pressed="false"] { border-style: dashed; }
.samplers button[aria-pressed="false"] bdi { color: var(--quiet); text-decoration: line-through; }
.samplers button[aria-pressed="false"] .swatch { opacity: 0.25; }
.samplers .plain { border-color: transparent; background: none; color: var(--accent); padding-inline: 6px; }
.samplers .level-key { display: inline-flex; align-items: center; gap: 7px; font-size: 0.88rem; color: var(--quiet); }
@media screen and (min-width: 900px) and (min-height: 640px) {
  .scripted .samplers {
    position: sticky; top: 0; z-index: 4; background: var(--card); max-height: 34vh; overflow-y: auto;
    border-bottom: 1px solid var(--edge);
  }
}
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 20px 18px; }
.charts.one { grid-template-columns: minmax(0, 1fr); }
.charts.two { grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); }
.chart figcaption {
  font-size: 0.92rem; font-weight: 600; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
}
.plot:focus-visible, .heat:focus-visible { outline-offset: 0; }
.plot { margin-top: 4px; border-radius: 6px; touch-action: pan-y; min-height: 120px; }
.plot > svg { display: block; width: 100%; height: auto; max-width: 640px; }
.scripted .plot > svg { max-width: none; }
.plot text, .heat text { font-size: 12px; fill: var(--quiet); font-variant-numeric: tabular-nums; }
.plot .what { fill: var(--text); unicode-bidi: isolate; }
.cross { fill: none; stroke: var(--text); stroke-opacity: 0.6; }
.plot .at { fill: var(--card); stroke: currentColor; stroke-width: 2; }
.hint { font-size: 0.85rem; color: var(--quiet); }
#tip {
  position: fixed; z-index: 8; pointer-events: none; padding: 8px 12px; background: var(--card); color: var(--text);
  border: 1px solid var(--quiet); border-radius: 8px; box-shadow: 0 4px 16px rgb(0 0 0 / 0.18); font-size: 0.82rem;
  line-height: 1.4; max-width: calc(100vw - 16px); max-height: calc(100vh - 16px); overflow: hidden;
}
#tip b { display: block; margin-bottom: 2px; }
#tip table { width: auto; font-size: inherit; }
#tip td { padding: 0 0 0 10px; white-space: nowrap; font-variant-numeric: tabular-nums; }
#tip td:first-child { padding-left: 0; }
#tip .twice { display: flex; gap: 22px; align-items: start; }
.sheet td small { display: block; white-space: nowrap; font-size: 0.8em; }
.sheet tbody th { color: var(--text); font-weight: 400; white-space: nowrap; }
.results th, .results td { padding: 6px 7px; }
.results thead th { vertical-align: bottom; }
.results td:first-child { white-space: nowrap; }
.results tbody tr { background: var(--card); }
.results tbody tr:nth-child(even) { background: var(--stripe); }
.results tbody th { position: sticky; left: 0; z-index: 1; background: inherit; }
.results thead th:not(:nth-child(-n+2)) { text-align: right; }
.results td { line-height: 1.35; }
.results td:nth-child(n+3), .costs td:nth-child(n+3), .shares td {
  text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap;
}
.verdict b { font-weight: 600; white-space: nowrap; }
.verdict.v0 b { font-weight: 400; color: var(--quiet); }
.one-experiment :is(th, td):first-child { display: none; }
.matrix { width: auto; }
.box:has(> .matrix) { width: fit-content; max-width: 100%; }
.matrix th, .matrix td { padding: 6px 10px; }
.matrix td { text-align: right; font-variant-numeric: tabular-nums; line-height: 1.35; white-space: nowrap; }
.matrix td small { color: var(--text); opacity: 0.85; }
.matrix td.none, .matrix td.v0 > span { color: var(--quiet); }
.matrix td.v1 { background: var(--good); }
.matrix td.v-1 { background: var(--bad); }
.matrix td.v1 > span, .matrix td.v-1 > span { font-weight: 600; }
.matrix td.same { background: var(--track); }
.matrix td.shade { background: color-mix(in srgb, var(--good) calc(var(--share) * 100%), transparent); }
.matrix thead th { text-align: right; }
.matrix tbody th {
  position: sticky; left: 0; z-index: 1; background: var(--card); border-right: 1px solid var(--edge);
}
.matrix thead th:first-child { position: sticky; left: 0; z-index: 3; }
.matrix tbody tr:nth-child(even) { background: none; }
.matrix .means > * { border-top: 2px solid var(--edge); }
.ranks { display: block; max-width: none; height: auto; }
.wide { overflow-x: auto; padding: 4px 0; }
.costs th, .costs td { padding: 7px 12px; }
.costs td.bars { min-width: 180px; width: 34%; vertical-align: middle; }
.costs .track { display: flex; height: 14px; border-radius: 3px; }
.costs .track span { display: block; height: 100%; border-right: 1px solid var(--card); }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; vertical-align: -1px; }
.of-experiment { border-top: 1px solid var(--edge); padding: 10px 0; }
.of-experiment > summary { font-weight: 600; overflow-wrap: anywhere; padding: 4px 0; }
.picks {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 24px 20px;
  margin: 10px 0 14px;
}
.pick { min-width: 0; }
.pick h3 { margin: 0 0 6px; font-size: 0.95rem; }
.heat { touch-action: pan-y; }
.heat svg { display: block; width: 100%; height: auto; }
.heat rect { fill: var(--heat); }
.heat .frame { fill: none; stroke: var(--edge); }
.heat text.class { unicode-bidi: isolate; fill: var(--text); }
.pictures {
  display: grid; grid-template-columns: repeat(var(--n), minmax(0, 60px)); gap: 5px; margin: 0; padding: 0;
  list-style: none;
}
.pictures img {
  display: block; width: 100%; height: auto; aspect-ratio: 1; object-fit: contain; background: var(--track);
  border-radius: 4px;
}
.pictures img.tiny { image-rendering: pixelated; }
.pictures small { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.texts { margin: 0; padding: 0; list-style: none; font-size: 0.88rem; line-height: 1.4; }
.texts li { padding: 4px 0; border-top: 1px solid var(--edge); overflow-wrap: anywhere; }
.texts li:first-child { border-top: 0; }
.texts small { display: block; }
.shares th, .shares td { padding: 5px 12px; white-space: nowrap; }
.of-experiment details { margin-top: 8px; }
.of-experiment details > summary { font-size: 0.9rem; color: var(--accent); padding: 3px 0; }
.made h3 { margin: 16px 0 6px; font-size: 0.95rem; }
.made ul { margin: 0; padding-left: 1.2em; overflow-wrap: anywhere; }
.made ul.long { max-height: 320px; overflow: auto; }
@media (max-width: 600px) {
  .answer { font-size: 1.02rem; }
  .matrix tbody th .swatch { display: none; }
  :is(.matrix, .results, .costs) tbody .sampler bdi {
    width: max-content; max-width: 13ch; white-space: normal; overflow-wrap: anywhere;
  }
}
@media print {
  body > * { max-width: none; }
  .samplers button { border: 0; padding: 0 8px 0 0; min-height: 0; }
  .samplers .plain, .samplers [aria-pressed="false"], .hint, nav, #tip { display: none; }
  .charts, .charts.two { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .charts.one { grid-template-columns: minmax(0, 1fr); }
  .matrix tbody th, .matrix thead th:first-child { position: static; }
  .sheet.results th, .sheet.results td, .sheet.matrix th, .sheet.matrix td { padding: 2px 3px; }
  .sheet.results, .sheet.matrix { font-size: 7pt; }
  .sheet thead th { font-size: inherit; }
  .results td small, .matrix td small { font-size: 5.5pt; }
  .results tbody th { position: static; }
  .box:has(> .matrix) { width: auto; }
  .picks { grid-template-columns: repeat(3, minmax(0, 1fr)); }
}
"""
)
