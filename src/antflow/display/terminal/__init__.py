"""Drawing on a terminal. `open_pane` is the only door: the rest of the package stays in here.

A display draws frames in its `Pane`; the `Screen` of the terminal puts all panes together
(`Composition`), the terminal shows them as its last lines or as a second screen (`area`), and
prints of tasks are captured meanwhile and shown above. The terminal is given back at the end, after
errors, and when a signal ends or stops the program (`stop_signals`).
"""

from antflow.display.terminal.screen import open_pane

__all__ = ["open_pane"]
