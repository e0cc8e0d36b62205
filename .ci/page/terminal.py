"""Records the output of a command on a terminal, and draws it as an animation that plays once.

Usage: terminal.py PICTURE SHOWN COMMAND…, where SHOWN is the text of the command in the picture. A
viewer without animations shows the final state.
"""

import html
import os
import pty
import re
import select
import sys
import time

COLUMNS, CELL, LINE, EDGE = 72, 8.4, 20, 16
PLAYED_S, FRAMES_MAX = 4.0, 14
COLOURS = {"31": "#ff9d70", "32": "#7ee2a8", "33": "#f0e442", "1": "#ffffff", "2": "#9dabb9"}


def record(command):
    """Returns the pieces of the output with their times, and the exit code."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm", COLUMNS=str(COLUMNS))
        os.execvp(command[0], command)
    parts, began = [], time.monotonic()
    while True:
        select.select([terminal], [], [])
        try:
            data = os.read(terminal, 65536)
        except OSError:
            data = b""
        if not data:
            return parts, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        parts.append((time.monotonic() - began, data.decode()))


class Screen:
    """A terminal with the functions that a table and a progress line need."""

    def __init__(self):
        self.lines, self.colour = [""], None

    def write(self, text):
        for token in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            if token == "\n":
                self.lines.append("")
            elif token in ("\r", "\x1b[K", "\x1b[?7l", "\x1b[?7h"):
                # After a CR the program writes the whole line again; no line here is too long.
                self.lines[-1] = "" if token == "\r" else self.lines[-1]
            elif token.startswith("\x1b"):
                self.colour = COLOURS.get(token[2:-1].split(";")[-1])
            else:
                words = html.escape(token).replace(" ", "\u00a0")
                self.lines[-1] += f'<tspan fill="{self.colour}">{words}</tspan>' if self.colour else words


def frames(parts):
    """Returns the contents of the screen with their times, reduced to a few steps."""
    screen, all_frames = Screen(), []
    for at, text in parts:
        # A terminal turns LF into CR LF, where the CR does not begin the line again.
        screen.write(text.replace("\r\n", "\n"))
        all_frames.append((at, [line for line in screen.lines if line]))
    step = max(1, len(all_frames) // FRAMES_MAX)
    return all_frames[:-1:step] + all_frames[-1:]


def draw(shown, steps):
    """Draws each line for its time. The final lines are visible without the animation."""
    scale = PLAYED_S / max(steps[-1][0], 0.001)
    last = steps[-1][1]
    height = 2 * EDGE + LINE * (1 + max(len(lines) for _, lines in steps))
    width = 2 * EDGE + CELL * COLUMNS

    def text(row, line, inside="", hidden=False):
        is_hidden = ' visibility="hidden"' if hidden else ""
        return f'<text x="{EDGE}" y="{EDGE + LINE * (row + .75):.0f}"{is_hidden}>{line}{inside}</text>'

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}">',
           f"<title>{html.escape(shown)}</title>",
           '<rect width="100%" height="100%" rx="8" fill="#0f1419"/>',
           '<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace" font-size="14"'
           ' fill="#e3e9ef" style="white-space:pre" xml:space="preserve">',
           text(0, f'<tspan fill="#9dabb9">$ </tspan>{html.escape(shown)}')]
    for row in range(max(len(lines) for _, lines in steps)):
        spans = []
        for (at, lines), (until, _) in zip(steps, steps[1:] + [(None, None)]):
            line = lines[row] if row < len(lines) else ""
            if spans and spans[-1][2] == line:
                spans[-1][1] = until
            else:
                spans.append([at, until, line])
        for at, until, line in spans:
            if line and until is None and row < len(last):
                out.append(text(row + 1, line, f'<set attributeName="visibility" to="hidden" begin="0s" dur="{at * scale:.2f}s"/>'))
            elif line:
                out.append(text(row + 1, line, f'<set attributeName="visibility" to="visible" begin="{at * scale:.2f}s"'
                                               f' dur="{(until - at) * scale:.2f}s"/>', hidden=True))
    return "\n".join([*out, "</g>", "</svg>", ""])


def main():
    picture, shown, *command = sys.argv[1:]
    parts, code = record(command)
    assert code == 0, f"{command} ended with {code}: {parts[-3:]}"
    with open(picture, "w") as file:
        file.write(draw(shown, frames(parts)))


if __name__ == "__main__":
    main()
