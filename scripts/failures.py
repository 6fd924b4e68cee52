#!/usr/bin/env python3
# usage: scripts/failures.py RESULTS...
"""Tells which tests of ctest's records (--output-junit) did not pass, and the end of what each printed."""

import sys
import xml.etree.ElementTree as xml

LAST_LINES = 40  # of a test's output: the assertion or the sanitizer's report, without what was there before


def main(records):
    if records == ["--help"]:
        print(__doc__)
        return 0
    if not records or records[0].startswith("-"):
        print("failures.py: usage: scripts/failures.py RESULTS...", file=sys.stderr)
        return 2
    for record in records:
        try:
            tests = xml.parse(record)
        except (OSError, xml.ParseError) as error:
            print(f"failures.py: {record}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
            return 1
        for test in tests.iter("testcase"):
            if test.get("status") == "run":
                continue
            seconds = float(test.get("time", 0))
            print(f"-- {record}: {test.get('name')}: {test.get('status')}, after {seconds:.0f} s")
            output = (test.findtext("system-out") or "").rstrip().splitlines()
            if len(output) > LAST_LINES:
                print(f"   ... {len(output) - LAST_LINES} lines before")
            for line in output[-LAST_LINES:]:
                print(f"   {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
