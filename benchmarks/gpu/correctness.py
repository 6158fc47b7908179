"""Part correctness: tests/gpu, in a process of their own; a row for every test."""

from benchmarks.document import table
from benchmarks.gpu.record import Row
from benchmarks.gpu.run import Part, Run

SECONDS = 150.0
ALL = "all of tests/gpu"


def run(it: Run, part: str) -> None:
    """Tests that passed before are not run again."""
    passed = [row["row"] for row in it.record.of(part) if row.get("found", {}).get("outcome") == "passed"]
    environment = {
        "GPU_ROWS": str(it.record.folder.resolve()),
        "GPU_DEVICE": it.device,
        "PRESENCE_GPU_TESTS": "cpu" if it.device == "cpu" else "cuda",
        **({"OMP_NUM_THREADS": "1"} if it.device == "cpu" else {}),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # so that what is compared to the bit can be
    }
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "-p", "benchmarks.gpu.row_plugin"]
    options += [f"--deselect={name}" for name in passed]

    def measure() -> dict[str, str]:
        said = it.python("-m", "pytest", "tests/gpu", *options, most_s=SECONDS, environment=environment, may_fail=True)
        (it.record.folder / "tests.log").write_text(said, encoding="utf-8")
        last = said.strip().splitlines()[-1]
        if "failed" in last or "error" in last or not ("passed" in last or "deselected" in last):
            raise RuntimeError(last)
        return {"said": last}

    it.row(part, ALL, {}, measure, 20.0)


def report(rows: list[Row]) -> str:
    """Counts by file, and the text of what failed or was skipped."""
    tests = [row for row in rows if row["row"] != ALL]
    files = dict.fromkeys(row["row"].split("::")[0] for row in tests)
    lines, said = [], ""
    for file in files:
        of_file = [row["found"] for row in tests if row["row"].startswith(file)]
        counts = [sum(found["outcome"] == outcome for found in of_file) for outcome in ("passed", "failed", "skipped")]
        lines.append([file, *map(str, counts), f"{sum(found['seconds'] for found in of_file):.1f} s"])
    for row in tests:
        if row["found"]["text"]:
            said += f"\n\n**{row['row']}** {row['found']['outcome']}:\n\n```text\n{row['found']['text']}\n```"
    return table(["tests", "passed", "failed", "skipped", "time"], lines) + said


PART = Part("Correct", run, report, ("pytest", "hypothesis"))
