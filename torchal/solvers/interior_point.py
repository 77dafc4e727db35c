"""A primal-dual interior-point method for the dual of support vector machines; `svm_dual` says of which problem.

Axes: B problems; m rows of a problem; 2 bounds of a row's coefficient, zero below it and `upper` above it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_EPS = 2.0**-52
_RIDGE = 400 * _EPS  # per row; 8 would do for a factor, more keeps rounding out of what the kernel leaves open
_PINNED = 1e40  # curvature of a row that must not move: what the others feel of it is less than rounding
_FORCE = 0.3  # least multiplier at the start
_CORRECTIONS = 2  # most corrections of a direction by the products that it leads to
_CENTRAL = 1e-2  # a step leaves no product of a slack and its force below this part of their mean
_LENGTHS = (1.0, 0.97, 0.9, 0.75, 0.5, 0.2)  # what is tried for that, in parts of the longest step
_CLOSE = 1e-2  # violation from which on it pays to solve for the rows between their bounds
_IDLE = 3  # steps that made the mean product no smaller, after which steps aim at the middle
_GIVE_UP = 30  # steps without any progress that end a problem
_GIVE_UP_CLOSE = 12  # the same below _CLOSE, where progress is quick or there is none
_NOTHING = 1e-22  # mean product, in parts of the coefficients' sum, whose decrease is no progress


class _Problems(NamedTuple):
    """Problems that are not solved yet, in units in which the diagonals of their kernels are about 1.

    Shapes:
        kernel: (B, m, m), the unit matrix in place of padding.
        signs, upper: (B, m).
        box: (B, m), bounds that leave the same solutions as `upper`.
        live: (B, m), 1, or 0 for padding.
    """

    kernel: Tensor
    signs: Tensor
    upper: Tensor
    box: Tensor
    live: Tensor

    def balance(self, alpha: Tensor) -> Tensor:
        """Return s'a, (B,)."""
        return (self.signs * alpha).sum(1)


class _Point(NamedTuple):
    """Where the interior-point method is; 1 everywhere in place of padding.

    Shapes:
        slack: (B, 2, m), how far coefficients are from their bounds: alpha, and box - alpha.
        force: (B, 2, m), the multipliers of these bounds.
        bias: (B,), the multiplier of the equality.
    """

    slack: Tensor
    force: Tensor
    bias: Tensor

    def moved(self, direction: _Point, length: Tensor) -> _Point:
        """Return the point after a step of the given length, (B,)."""
        along = length[:, None, None]
        return _Point(
            self.slack + along * direction.slack,
            self.force + along * direction.force,
            self.bias + length * direction.bias,
        )


class _Track(NamedTuple):
    """How far each problem is.

    Shapes:
        slots: (B,) int64, the problem's place among all.
        alpha, violation: (B, m) and (B,), the best so far.
        side: (B, m), 1 for rows that were at their lower bound after the last step, -1 for the upper, else 0.
        ridge: (B,), what is added to the diagonal, in parts of itself, for a Cholesky factor to exist.
        mu: (B,), the least mean product of slack and force so far.
        idle: (B,) int64, steps since it became less.
        stalled: (B,) int64, steps since anything became better.
    """

    slots: Tensor
    alpha: Tensor
    violation: Tensor
    side: Tensor
    ridge: Tensor
    mu: Tensor
    idle: Tensor
    stalled: Tensor


def solve(
    kernel: Tensor, signs: Tensor, upper: Tensor, rows: Tensor, *, tol: float, max_iter: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve the problems `rows` (b,) int64, which have rows of both signs; kernel, signs and upper are those of all.

    Returns:
        The best coefficients (b, m), their violation (b,), and how many steps were taken (b,) int64.
    """
    problems, scale = _prepare(kernel, signs, upper, rows)
    spare = torch.empty_like(problems.kernel)
    point, track = _start(problems), _new_track(problems)
    found, violation, n_iter = track.alpha.clone(), track.violation.clone(), track.idle.clone()
    for step in range(1, max_iter + 1):
        factor = _Factor(problems.kernel, (point.force / point.slack).sum(1) * problems.live, track.ridge, spare)
        point, mu = _move(problems, point, factor, track.idle >= _IDLE)
        side, alpha, reached = _snap(problems, point)
        same = (side == track.side).all(1)
        near = ((reached <= tol) | (same & (reached <= _CLOSE))).nonzero().squeeze(1)
        if len(near):
            alpha, reached = _polish(
                problems, alpha, reached, side=side, bias=point.bias, rows=near, ridge=factor.ridge, room=spare
            )
        lost = factor.failed | ~torch.isfinite(mu)
        track = _advance(track, alpha, reached, mu=mu, side=side, ridge=factor.ridge)
        # what rounding alone may do to a violation
        root = problems.kernel.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt() * problems.live
        noise = _EPS * root.amax(1) * (root * track.alpha).sum(1)
        done = (track.violation <= tol) | lost | (track.stalled >= _GIVE_UP)
        done |= (track.stalled >= _GIVE_UP_CLOSE) & (track.violation <= _CLOSE)
        done |= (track.stalled >= _IDLE) & (track.violation <= 64 * noise)
        if step == max_iter:
            done = torch.ones_like(done)
        ended, left = done.nonzero().squeeze(1), (~done).nonzero().squeeze(1)
        if not len(ended):
            continue
        where = track.slots[ended]
        found[where], violation[where], n_iter[where] = track.alpha[ended], track.violation[ended], step
        if not len(left):
            break
        # what is left of the kernels goes to the spare room, and their own room becomes the spare one
        torch.index_select(problems.kernel, 0, left, out=spare[: len(left)])
        kernels, spare = spare[: len(left)], problems.kernel[: len(left)]
        problems = _Problems(kernels, *(v.index_select(0, left) for v in problems[1:]))
        point, track = _Point(*(v.index_select(0, left) for v in point)), _Track(*(v[left] for v in track))
    return found / scale[:, None], violation, n_iter


def _prepare(kernel: Tensor, signs: Tensor, upper: Tensor, rows: Tensor) -> tuple[_Problems, Tensor]:
    """Return the problems `rows`, and how many times larger their coefficients are than those of the same problems."""
    kernel, signs, upper = (v.index_select(0, rows) for v in (kernel, signs, upper))
    live = (signs != 0).double()
    diagonal = kernel.diagonal(dim1=1, dim2=2)
    mean = (diagonal * live).sum(1) / live.sum(1)
    # a power of two leaves all digits as they are
    scale = torch.where(mean > 0, mean, 1.0).log2().round().exp2()
    kernel *= live[:, None, :]
    kernel *= (live / scale[:, None])[:, :, None]
    diagonal += 1 - live
    upper = torch.where(live > 0, upper * scale[:, None], 1.0)
    # A row cannot have more than all rows of the other sign have together. Without that, bounds far beyond it drown
    # in their mean product what the other rows are about; twice that much is never reached, and so it has no force.
    other = torch.where(signs > 0, (upper * (signs < 0)).sum(1, True), (upper * (signs > 0)).sum(1, True))
    box = torch.where(live > 0, torch.minimum(upper, 2 * other), 1.0)
    return _Problems(kernel, signs, upper, box, live), scale


def _start(problems: _Problems) -> _Point:
    """Return a point that satisfies all equations but those of complementarity."""
    signs, live, box = problems.signs, problems.live > 0, problems.box
    alpha = (box / 2).clamp(max=1)
    sums = torch.stack([(alpha * (signs > 0)).sum(1), (alpha * (signs < 0)).sum(1)])
    parts = sums.amin(0) / sums
    alpha = torch.where(live, alpha * torch.where(signs > 0, parts[0, :, None], parts[1, :, None]), 0.0)
    gradient = torch.where(live, dual_gradient(problems.kernel, signs, problems.live, alpha), 0.0)
    slack = torch.stack([alpha, box - alpha], 1)
    force = torch.stack([gradient, -gradient], 1).clamp(min=0) + _FORCE
    return _Point(
        torch.where(live[:, None], slack, 1.0), torch.where(live[:, None], force, 1.0), torch.zeros_like(parts[0])
    )


def _new_track(problems: _Problems) -> _Track:
    n_problems, n_rows = problems.signs.shape
    of_each = problems.signs.new_zeros(n_problems)
    counts = torch.zeros_like(of_each, dtype=torch.int64)
    return _Track(
        slots=torch.arange(n_problems, device=of_each.device),
        alpha=torch.zeros_like(problems.signs),  # its gradient is -1 everywhere: it violates by 2
        violation=of_each + 2,
        side=torch.full_like(problems.signs, torch.nan),
        ridge=of_each + _RIDGE * n_rows,
        mu=of_each + torch.inf,
        idle=counts,
        stalled=counts,
    )


def _advance(track: _Track, alpha: Tensor, reached: Tensor, *, mu: Tensor, side: Tensor, ridge: Tensor) -> _Track:
    better = reached < track.violation
    closer = reached < 0.8 * track.violation
    idle = torch.where(mu < 0.8 * track.mu, 0, track.idle + 1)
    violation = torch.where(better, reached, track.violation)
    # the mean product alone may fall for ever
    progress = closer | ((idle == 0) & (mu > _NOTHING * alpha.sum(1)))
    return _Track(
        slots=track.slots,
        alpha=torch.where(better[:, None], alpha, track.alpha),
        violation=violation,
        side=side,
        ridge=ridge,
        mu=torch.minimum(mu, track.mu),
        idle=idle,
        stalled=torch.where(progress, 0, track.stalled + 1),
    )


class _Factor:
    """The Cholesky factors of kernels with something added to their diagonals, in `room`.

    Shapes:
        kernel: (B, m, m).
        extra, ridge: (B, m) and (B,); see `_Track` for the ridge, which becomes larger where no factor exists.
        room: (B or more, m, m).
        rows: (b,) int64, the problems that are meant, of which `extra` and `ridge` are; all unless given.
    """

    def __init__(self, kernel: Tensor, extra: Tensor, ridge: Tensor, room: Tensor, rows: Tensor | None = None) -> None:
        room = room[: len(extra)]
        info = torch.empty(len(extra), dtype=torch.int32, device=extra.device)
        for _ in range(5):
            if rows is None:
                room.copy_(kernel)
            else:
                torch.index_select(kernel, 0, rows, out=room)
            diagonal = room.diagonal(dim1=1, dim2=2)
            diagonal += extra
            diagonal *= 1 + ridge[:, None]
            # In place, which saves a third of the memory; the transpose has the layout that LAPACK works on.
            torch.linalg.cholesky_ex(room.mT, out=(room.mT, info))
            self.failed = info != 0
            if not bool(self.failed.any()):
                break
            ridge = torch.where(self.failed, 1000 * ridge, ridge)
        self.ridge = ridge
        self._lower = room.mT

    def solve(self, values: Tensor) -> Tensor:
        """Return the inverse times values, (B, m)."""
        half = torch.linalg.solve_triangular(self._lower, values.unsqueeze(2), upper=False)
        whole: Tensor = torch.linalg.solve_triangular(self._lower.mT, half, upper=True)
        return whole.squeeze(2)


class _Newton:
    """Newton's equations at a point.

    In s * alpha in place of alpha, their matrix is the kernel with the curvature of the bounds on its diagonal,
    bordered by ones: the class of a row does not matter.
    """

    def __init__(self, problems: _Problems, point: _Point, factor: _Factor) -> None:
        alpha = point.slack[:, 0] * problems.live
        gradient = dual_gradient(problems.kernel, problems.signs, problems.live, alpha)
        pull = problems.signs * point.bias[:, None] - point.force[:, 0] + point.force[:, 1]
        self._residual = (gradient + pull) * problems.live
        self._balance = problems.balance(alpha)
        self._ones = factor.solve(problems.live)
        self._total = self._ones.sum(1)
        self._problems, self._point, self._factor = problems, point, factor

    def direction(self, change: Tensor) -> tuple[_Point, Tensor]:
        """Return the step that changes the products of slack and force so, (B, 2, m), and its longest part, (B,)."""
        slack, force, _ = self._point
        signs, live = self._problems.signs, self._problems.live
        wanted = (change[:, 0] / slack[:, 0] - change[:, 1] / slack[:, 1] - self._residual) * signs
        signed = self._factor.solve(wanted)
        bias = (signed.sum(1) + self._balance) / self._total
        alpha = signs * (signed - bias[:, None] * self._ones)
        move = torch.stack([alpha, -alpha], 1)
        push = (change - force * move) / slack * live[:, None]
        ends = torch.minimum(
            torch.where(move < 0, -slack / move, torch.inf).amin((1, 2)),
            torch.where(push < 0, -force / push, torch.inf).amin((1, 2)),
        )
        return _Point(move, push, bias), ends


def _move(problems: _Problems, point: _Point, factor: _Factor, careful: Tensor) -> tuple[_Point, Tensor]:
    """Return the point after a step, and the mean product of slack and force before it, (B,).

    Shapes:
        careful: (B,) bool, whose step is to aim at the middle, since the last ones that did not led nowhere.
    """
    live = problems.live[:, None]
    count = 2 * problems.live.sum(1)
    newton = _Newton(problems, point, factor)
    products = point.slack * point.force * live
    mu = products.sum((1, 2)) / count
    predictor, ends = newton.direction(-products)
    length = ends.clamp(max=1)
    there = point.moved(predictor, length)
    share = ((there.slack * there.force * live).sum((1, 2)) / count / mu) ** 3
    share = torch.where(careful, share.clamp(min=0.3), share)
    second = torch.where(careful, 0.0, length.square())
    aim = (share * mu)[:, None, None]
    change = (aim - products - second[:, None, None] * predictor.slack * predictor.force) * live
    step, ends = newton.direction(change)
    for _ in range(_CORRECTIONS):
        there = point.moved(step, (ends + 0.2).clamp(max=1))
        reached = there.slack * there.force
        correction = (reached.clamp(0.1 * aim, 10 * aim) - reached).clamp(min=-10 * aim) * live
        corrected, corrected_ends = newton.direction(change + correction)
        good = corrected_ends >= 1.01 * ends
        wide = good[:, None, None]
        change = torch.where(wide, change + correction, change)
        step = _Point(
            torch.where(wide, corrected.slack, step.slack),
            torch.where(wide, corrected.force, step.force),
            torch.where(good, corrected.bias, step.bias),
        )
        ends = torch.where(good, corrected_ends, ends)
    return point.moved(step, _central_length(problems, point, step, (0.995 * ends).clamp(max=1), mu)), mu


def _central_length(problems: _Problems, point: _Point, step: _Point, most: Tensor, mu: Tensor) -> Tensor:
    """Return the longest of some lengths, (B,), with which no product falls far behind their mean.

    Without that, a row can go all the way from one of its bounds to the other and back, for ever.
    """
    live = problems.live[:, None] > 0
    count = 2 * problems.live.sum(1)
    products = torch.where(live, point.slack * point.force, torch.inf)
    least = (products.amin((1, 2)) / mu).clamp(max=_CENTRAL) * (1 - 1e-9)
    length, found = most, torch.zeros_like(most, dtype=torch.bool)
    for part in _LENGTHS:
        length = torch.where(found, length, part * most)
        there = point.moved(step, length)
        products = torch.where(live, there.slack * there.force, 0.0)
        mean = products.sum((1, 2)) / count
        found = torch.where(live, products, torch.inf).amin((1, 2)) >= least * mean
    return length


def _snap(problems: _Problems, point: _Point) -> tuple[Tensor, Tensor, Tensor]:
    """Return the side of each row, as in `_Track`, coefficients with rows at their bounds, and their violation."""
    slack, force, _ = point
    # a bound holds a row whose coefficient it bends more than the kernel or the size of the box would
    bend = torch.maximum(problems.kernel.diagonal(dim1=1, dim2=2), 1 / problems.box)
    held = force > slack * bend[:, None]
    below = held[:, 0] & (slack[:, 0] < slack[:, 1])
    above = held[:, 1] & (slack[:, 0] >= slack[:, 1]) & (problems.box == problems.upper)
    alpha = torch.where(below, 0.0, torch.where(above, problems.upper, slack[:, 0])) * problems.live
    return below.double() - above.double(), *_judge(problems, alpha)


def _judge(problems: _Problems, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Return the coefficients, brought back into their bounds and into balance, and the violation, (B,).

    It is infinite where rows that are not at a bound do not suffice to balance the others.
    """
    alpha = torch.minimum(alpha.clamp(min=0), problems.upper) * problems.live
    room = torch.minimum(alpha, problems.upper - alpha)
    part = problems.balance(alpha) / room.sum(1).clamp(min=torch.finfo(torch.float64).tiny)
    moved = alpha - problems.signs * room * part[:, None]
    alpha = torch.where(room > 0, torch.minimum(moved.clamp(min=0), problems.upper), alpha)
    balanced = problems.balance(alpha).abs() <= 64 * _EPS * alpha.sum(1)
    value = -problems.signs * dual_gradient(problems.kernel, problems.signs, problems.live, alpha)
    highest, lowest = extremes(value, problems.signs, problems.upper, alpha)
    return alpha, torch.where(balanced, (highest - lowest).clamp(min=0), torch.inf)


def _polish(
    problems: _Problems,
    alpha: Tensor,
    violation: Tensor,
    *,
    side: Tensor,
    bias: Tensor,
    rows: Tensor,
    ridge: Tensor,
    room: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return alpha and violation with the problems `rows` solved for what is not at a bound, where that is better."""
    free = ((side == 0) * problems.live).index_select(0, rows)
    factor = _Factor(problems.kernel, (1 - free) * _PINNED, ridge.index_select(0, rows), room, rows)
    signs, bias = problems.signs.index_select(0, rows), bias.index_select(0, rows)
    ones = factor.solve(free) * free
    total = ones.sum(1)
    total = torch.where(total > 0, total, 1.0)
    trial = alpha.clone()
    for _ in range(4):  # the ridge makes each solution inexact
        gradient = dual_gradient(problems.kernel, problems.signs, problems.live, trial).index_select(0, rows)
        signed = factor.solve(-(signs * gradient + bias[:, None]) * free) * free
        shift = (signed.sum(1) + problems.balance(trial).index_select(0, rows)) / total
        trial[rows] += signs * (signed - shift[:, None] * ones)
        bias = bias + shift
    trial, reached = _judge(problems, trial)
    better = reached < violation
    return torch.where(better[:, None], trial, alpha), torch.where(better, reached, violation)


def dual_gradient(kernel: Tensor, signs: Tensor, live: Tensor, alpha: Tensor) -> Tensor:
    """Return the gradient of the objective, (B, m)."""
    return signs * torch.bmm(kernel, (signs * alpha).unsqueeze(2)).squeeze(2) - live


def extremes(value: Tensor, signs: Tensor, upper: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Return m(a) and M(a) of LIBSVM, (B,) each, where value (B, m) is -s times the gradient.

    They are the biases that the rows which may still move ask for: at least m(a), and at most M(a).
    """
    below, above = alpha < upper, alpha > 0
    up = torch.where(signs > 0, below, above & (signs < 0))
    low = torch.where(signs > 0, above, below & (signs < 0))
    return torch.where(up, value, -torch.inf).amax(1), torch.where(low, value, torch.inf).amin(1)
