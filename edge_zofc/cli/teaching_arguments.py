"""What the commands take that show a run pictures; as ``arguments.py`` otherwise."""

from __future__ import annotations

from edge_zofc.cli.argument_kinds import MOVED_BUNDLE, RUN_FOLDER, THREADS, Add, argument, path

TEACHING: dict[str, tuple[Add, ...]] = {
    "teach": (
        RUN_FOLDER,
        argument("name", metavar="NAME", help="what the pictures show: a new class or a known one"),
        path("pictures", "PICTURE", "pictures or folders of them", nargs="+"),
        argument("--test", action="store_true", help="keep them back: never learnt from, they measure the answers"),
        path("--bundle", "FOLDER", "where the run's bundle is; for a new run: its bundle (default: bundle/)"),
        THREADS,
    ),
    "forget": (RUN_FOLDER, argument("name", metavar="NAME", help="the class"), MOVED_BUNDLE),
    "rename": (
        RUN_FOLDER,
        argument("name", metavar="OLD", help="the class"),
        argument("to", metavar="NEW", help="its new name; that of another class makes both one"),
        MOVED_BUNDLE,
    ),
    "undo": (RUN_FOLDER, MOVED_BUNDLE),
    "lesson": (
        RUN_FOLDER,
        argument("--close", action="store_true", help="make it a task of RUN/lesson/tasks, a stream for learn"),
        MOVED_BUNDLE,
    ),
}
