"""What the test files here share that are lists of checks: functions that run one after another, in the order in which they are written."""
import time
import traceback

CHECKS = []


def check(function):
    """Marks a function as one of the file's checks."""
    CHECKS.append(function)
    return function


def carry_out(checks=None, after=lambda: None):
    """Runs the checks, `after` behind each, and prints a line for each, with what it returns.
    - Returns: how many failed."""
    checks = CHECKS if checks is None else checks
    failed = 0
    for function in checks:
        start = time.monotonic()
        try:
            note = function()
            after()
            print(f"ok   {function.__name__} ({time.monotonic() - start:.1f} s){f': {note}' if note else ''}", flush=True)
        except Exception:
            failed += 1
            print(f"FAIL {function.__name__}\n{traceback.format_exc()}", flush=True)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return failed


def run(checks=None, after=lambda: None):
    """The same, as the end of a file: exits with 1 if a check failed."""
    raise SystemExit(1 if carry_out(checks, after) else 0)
