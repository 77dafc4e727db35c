"""The site: `make docs` builds it into build/docs, without network, and any warning is an error."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the pages are the same with and without a GPU
os.environ.setdefault("MPLBACKEND", "agg")

from make_pages.choosing import cost_table, evidence_table, intervals_text  # noqa: E402
from make_pages.tutorials import as_reader_sees_it  # noqa: E402

import torchal  # noqa: E402

project = "torchal"
author = "the torchal authors"
copyright = author  # noqa: A001 - Sphinx's name for it
version = release = torchal.__version__
language = "en"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
    "myst_parser",
    "make_pages.docstrings",
    "make_pages.mathml",
    "make_pages.site",
    "make_pages.tutorials",
]
exclude_patterns = ["strategies/notes", "tutorials", "_static", "_templates"]
templates_path = ["_templates"]
default_role = "py:obj"
nitpicky = False

# -- prose ------------------------------------------------------------------------------------------------------------
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "substitution"]
myst_substitutions = {"evidence": evidence_table(), "intervals": intervals_text(), "costs": cost_table()}
myst_heading_anchors = 4
suppress_warnings = [
    "myst.header",  # a page may be part of another one
    "sphinx_gallery.space_in_filename",  # of the folder of the clone, which is in no link
]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# -- what docstrings say ----------------------------------------------------------------------------------------------
autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_preprocess_types = False
napoleon_attr_annotations = True
napoleon_custom_sections = [
    ("Shapes", "params_style"),
    ("Keys", "params_style"),
    ("Returned", "params_style"),
    "Complexity",
    "Reference",
]
napoleon_use_ivar = True
warnings.filterwarnings("ignore", message="The mapping interface for autodoc options")  # napoleon's own

# -- tutorials --------------------------------------------------------------------------------------------------------
sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "learn",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "make_pages.tutorials.InOrder",
    "reset_modules": ("make_pages.tutorials.start_afresh", "make_pages.tutorials.keep_to_time"),
    "reset_modules_order": "both",
    "first_notebook_cell": None,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "min_reported_time": 0,
    "write_computation_times": False,
    "default_thumb_file": str(DOCS / "_static" / "logo.svg"),
    "notebook_images": False,
    "capture_repr": (),
    "matplotlib_animations": False,
    "image_scrapers": ("matplotlib",),
    "inspect_global_variables": False,
    "thumbnail_size": (400, 260),
}
as_reader_sees_it()

# -- how it looks -----------------------------------------------------------------------------------------------------
html_theme = "pydata_sphinx_theme"
html_title = "torchal"
html_logo = "_static/logo.svg"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
html_use_index = False
html_domain_indices = False
html_theme_options = {
    "logo": {"text": "torchal", "alt_text": "torchal: home"},
    "navbar_align": "left",
    "navbar_persistent": ["search-button-field"],
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 7,
    "show_nav_level": 1,
    "navigation_depth": 2,
    "collapse_navigation": True,
    "secondary_sidebar_items": ["page-toc"],
    "primary_sidebar_end": [],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": [], "start": [], "choosing": []}
