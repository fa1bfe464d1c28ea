"""The live table of a sweep: pure functions from what was seen to what is painted.

cell    state     epoch                        metric           left
adabin  training    2/2  ━━━━━━━━━━╺━━━━━━━━━  test acc 16.7 %  0:03
xnor    finished      2                        test acc 30.0 %

1 of 2 done, 1 training; elapsed 0:30, left 0:03
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar as Stripe
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from bnnbench.records.words import UNKNOWN, clock
from bnnbench.sweep.watched import AT_WORK, ENDED, Seen, State, epoch_of, left_of

STYLES: dict[State, str] = {
    "waiting": "dim",
    "starting": "cyan",
    "training": "cyan",
    "resumed": "yellow",
    "evaluating": "cyan",
    "finished": "green",
    "reused": "green dim",
    "failed": "red",
}
# Which cells are shown where not all fit: those at work, what went wrong, the next ones, the rest.
FIRST: tuple[State, ...] = (*AT_WORK, "failed", "waiting", "finished", "reused")
STRIPE = (6, 20)  # columns of the bar within an epoch, at least and at most
LABEL = 12  # columns of a cell's name, at least, where others give way
WHY = 32  # columns of what a cell failed of: the folder has the rest
GAP = 2


class LiveTable:
    """The table, at most as wide and as high as the terminal that it is rendered for."""

    def __init__(self, cells: Sequence[Seen], elapsed: float, left: float | None) -> None:
        self.cells, self.elapsed, self.left = cells, elapsed, left

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.size.height
        shown, hidden = fitting(self.cells, height - 6)
        done, times = summary(self.cells, self.elapsed, self.left)
        last = width - len("^C ")  # which must not begin a line
        foot = [f"{done}; {times}"] if len(done) + len(times) + 2 <= last else [done, times]
        if hidden:
            foot.insert(0, f"... and {len(hidden)} more: {counted(hidden)}")
        yield Segment.line()
        yield from rows(shown, width, console, options)
        yield Segment.line()
        for text in foot:
            yield from _line(Text(text), last)


def fitting(cells: Sequence[Seen], room: int) -> tuple[list[Seen], list[Seen]]:
    """The cells that are shown in ``room`` lines, in the order of the sweep, and the others."""
    if len(cells) <= max(room, 1):
        return list(cells), []
    kept = max(room - 1, 1)  # a line says what the others are
    by_need = sorted(range(len(cells)), key=lambda n: (_need(cells[n].state), n))
    chosen = set(by_need[:kept])
    shown = [cell for number, cell in enumerate(cells) if number in chosen]
    return shown, [cell for number, cell in enumerate(cells) if number not in chosen]


def counted(cells: Sequence[Seen]) -> str:
    """How many cells are in which state: "2 training, 30 waiting"."""
    states = Counter(cell.state for cell in cells)
    return ", ".join(f"{states[state]} {state}" for state in FIRST if states[state])


def summary(cells: Sequence[Seen], elapsed: float, left: float | None) -> tuple[str, str]:
    """How far all cells are, and the time."""
    ended = [cell for cell in cells if cell.state in ENDED]
    others = [cell for cell in cells if cell.state not in ENDED or cell.state == "failed"]
    text = ", ".join(filter(None, [f"{len(ended)} of {len(cells)} done", counted(others)]))
    return text, f"elapsed {clock(elapsed)}, left {clock(left)}"


def rows(
    cells: Sequence[Seen], width: int, console: Console, options: ConsoleOptions
) -> RenderResult:
    """The header and a line a cell. Columns that do not fit are left out, the bar first."""
    columns = {
        "state": [cell.state for cell in cells],
        "epoch": [epoch_of(cell) for cell in cells],
        "metric": [shortened(cell.why or cell.metric or UNKNOWN, WHY) for cell in cells],
        "left": [left_of(cell) for cell in cells],
    }
    wide = {name: max(map(cell_len, [name, *texts])) for name, texts in columns.items()}
    labels = max(map(cell_len, ["cell", *(cell.label for cell in cells)]))
    for name in ("metric", "left", "epoch"):
        if sum(wide.values()) + GAP * len(wide) + min(labels, LABEL) > width:
            del wide[name]
    rest = width - sum(wide.values()) - GAP * len(wide)
    labels = max(1, min(labels, rest))
    stripe = min(STRIPE[1], rest - labels - GAP)
    stripe = stripe if stripe >= STRIPE[0] and "epoch" in wide else 0
    for number in range(-1, len(cells)):
        cell = None if number < 0 else cells[number]
        texts = {name: columns[name][number] if cell else name for name in wide}
        style = Style(dim=True) if cell is None else Style.parse(STYLES[cell.state])
        yield from _line(Text(shortened(cell.label if cell else "cell", labels)), labels, labels)
        for name, text in texts.items():
            side = "left" if name in ("state", "metric") else "right"
            yield Segment(" " * GAP)
            yield from _aligned(text, wide[name], side, style if name == "state" else None)
            if name == "epoch" and stripe:
                yield Segment(" " * GAP)
                yield from _stripe(cell, stripe, console, options)
        yield Segment.line()


def shortened(text: str, width: int) -> str:
    """The text in at most ``width`` columns: what it ends in tells cells apart, too."""
    if cell_len(text) <= width:
        return text
    if width <= 3:
        return set_cell_size(text, max(width, 0)).rstrip()
    tail = (width - 1) // 3
    end = text[-tail:] if tail else ""
    while cell_len(end) > tail:
        end = end[1:]
    return set_cell_size(text, width - 1 - cell_len(end)).rstrip() + "\N{HORIZONTAL ELLIPSIS}" + end


def _need(state: State) -> int:
    return 0 if state in AT_WORK else FIRST.index(state)


def _stripe(
    cell: Seen | None, width: int, console: Console, options: ConsoleOptions
) -> RenderResult:
    if cell is None or cell.position is None or not cell.position.batches:
        yield Segment(" " * width)
        return
    stripe = Stripe(total=1.0, completed=cell.position.fraction, width=width)
    drawn = list(console.render(stripe, options.update(width=width)))
    yield from drawn
    yield Segment(" " * (width - sum(each.cell_length for each in drawn)))


def _aligned(text: str, width: int, side: str, style: Style | None) -> RenderResult:
    space = " " * (width - cell_len(text))
    if side == "right":
        yield Segment(space)
    yield Segment(text, style)
    if side == "left":
        yield Segment(space)


def _line(text: Text, width: int, pad: int = 0) -> RenderResult:
    """One line, shortened where it has to be; without ``pad`` it ends there."""
    plain = shortened(text.plain, width)
    yield Segment(plain + " " * max(0, pad - cell_len(plain)), Style.parse(str(text.style)))
    if not pad:
        yield Segment.line()
