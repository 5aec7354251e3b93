"""What `make coverage` prints: how much of each package the tests reached. The HTML report has the lines themselves."""

from io import StringIO

from coverage import Coverage


def main() -> None:
    coverage = Coverage()
    coverage.combine()
    coverage.save()
    folder = coverage.get_option("html:directory")
    coverage.html_report()
    print(f"\n{'Package':<14}{'Lines':>8}{'Missed':>8}{'Branches':>10}{'Partly':>8}{'Reached':>9}")
    for package in coverage.get_option("run:source"):
        _tell(coverage, package, [f"{package}/*"])
    _tell(coverage, "all", None)
    print(f"\nLine by line: {folder}/index.html")


def _tell(coverage: Coverage, name: str, files: list[str] | None) -> None:
    told = StringIO()
    coverage.report(include=files, file=told)
    # The last line, TOTAL, is the files' sum.
    lines, missed, branches, partly, reached = told.getvalue().splitlines()[-1].split()[1:]
    print(f"{name:<14}{lines:>8}{missed:>8}{branches:>10}{partly:>8}{reached:>9}")


if __name__ == "__main__":
    main()
