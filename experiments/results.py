"""The page of results: ``python -m experiments.results``. It shows what the studies wrote.

A study's `claims.csv` says what it found in words, with numbers that are rows of its
`comparisons.csv`. Nothing is computed here, and nothing that trains is imported. The sentences of
`in_short.txt` are written by hand; tests hold them to the studies' numbers and verdicts.
"""

import dataclasses
import hashlib
import json
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from experiments.tables import markdown_table

Claim = dict[Hashable, Any]  # a row of a study's table of claims

PAGE, MANIFEST, CLAIMS, TABLE = "README.md", "manifest.json", "claims.csv", "table.csv"
FIGURE, IN_SHORT = "figure.png", "in_short.txt"
TITLES = {  # of claims, by their source; the paper's figures come first
    "central claim": "What the paper claims first",
    "abstract": "What its abstract says",
    "its selection": "How it selected",
    "the search": "The search for a plasticity that earns its place",
    "the leaderboard": "The leaderboards, all arms together",
    "not in the paper": "Not in the paper",
}
DECIDES = "verdict"
BOARDS = {
    "leaderboard": "Who is best, all tuned alike",
    "families": "Does any plasticity earn its place?",
}
LIMITS = (
    "Every data set has one split into training, held-out and test examples; seeds vary initial "
    "parameters, the order of the examples, dropout and augmentation, so that intervals speak of "
    "these and not of other data. Models and data are small: each report begins with what is less "
    "than in the full protocol, and its figure says what it could have shown. Constant rates, as "
    "published, are judged after the last epoch, which varies more than under a decay. CIFAR-10 "
    "is read from JPEG re-encodings where a manifest says so."
)


@dataclasses.dataclass(frozen=True)
class Result:
    """What one study left in its folder."""

    folder: Path
    manifest: dict[str, Any]

    def refusal(self) -> str:
        """Why the page does not show it; empty where it does."""
        selections = self.manifest["configuration"].get("selections")
        if selections is None:
            return ""
        path = self.folder.parent / selections["folder"] / "selections.csv"
        if not path.exists():
            return f"{path.parent.name} is missing, which it was made from"
        if hashlib.sha256(path.read_bytes()).hexdigest() != selections["sha256"]:
            return f"it was made from an earlier selection than the one in {path.parent.name}"
        return ""

    def claims(self) -> list[Claim]:
        """What the study says about claims."""
        claims = pd.read_csv(self.folder / CLAIMS, keep_default_na=False)
        return [{**claim, "folder": self.folder.name} for claim in claims.to_dict("records")]


def find(folder: Path) -> list[Result]:
    """The studies in a folder's subfolders, by name."""
    found = []
    for path in sorted(folder.glob(f"*/{MANIFEST}")):
        manifest = json.loads(path.read_text("utf-8"))
        if "study" in manifest:  # benchmarks leave their manifests there too
            found.append(Result(path.parent, manifest))
    return found


def answers(results: Iterable[Result]) -> list[Claim]:
    """One answer per question and data set: the one with most seeds, which cites the others."""
    asked: dict[tuple[str, str], list[Claim]] = {}
    for result in results:
        if not result.refusal():
            for claim in result.claims():
                asked.setdefault((claim["question"], claim["data"]), []).append(claim)
    chosen = []
    for claims in asked.values():
        best, *others = sorted(claims, key=lambda claim: -claim["n"])
        cited = [f"{claim['folder']} (n = {claim['n']})" for claim in others]
        note = f"; asked with fewer seeds in {', '.join(cited)}" if cited else ""
        chosen.append({**best, "measured": best["measured"] + note})
    return chosen


def in_short(folder: Path) -> list[str]:
    """The verdict in plain sentences, which are written by hand and are in the README too."""
    path = folder / IN_SHORT
    return ["## In short", path.read_text("utf-8").strip()] if path.exists() else []


def headline(folder: Path) -> list[str]:
    """The questions that decide, on all data sets together.

    Each answer has the number that decides it; the table of the page has all of them.
    """
    lines: dict[str, list[str]] = {}
    claims = [claim for claim in answers(find(folder)) if claim["headline"]]
    for claim in sorted(claims, key=lambda claim: -claim["n"]):
        decides = claim["measured"].partition("; ")[0]
        text = f"  - {claim['data']}: **{claim['answer']}** ({decides})."
        lines.setdefault(claim["question"], [f"- *{claim['question']}*"]).append(text)
    return [line for of_question in lines.values() for line in of_question]


def page(folder: Path) -> str:
    """The page as Markdown, from what the studies below ``folder`` wrote."""
    results = find(folder)
    shown = [result for result in results if not result.refusal()]
    refused = [
        f"- {result.folder.name}: {result.refusal()}; run the study "
        f"{result.manifest['study']} anew."
        for result in results
        if result.refusal()
    ]
    links = [f"- [{result.folder.name}]({result.folder.name}/report.md)" for result in shown]
    sections = [
        "# Results",
        "Made by `python -m experiments.results` from what the studies left in these folders; "
        "nothing is computed here. Δ is in percentage points of final test accuracy where nothing "
        "else is said, treatment minus control, paired by seed, with its 95% BCa interval. p is "
        "from sign flips and adjusted by Holm over the comparisons of its study: one-sided where "
        "the mean is above zero, two-sided where it is below. The answers follow from the verdicts "
        "that are explained in [how to read them](../results.md).",
        *boards(shown),
        *in_short(folder),
        "## The questions that decide",
        "\n".join(headline(folder)),
        *(picture(result) for result in shown if result.manifest["study"] == DECIDES),
        *one_by_one(shown),
        "## Limits",
        LIMITS,
        *(["## Not shown, because their input has changed", "\n".join(refused)] if refused else []),
        "## Reports",
        "\n".join(links),
    ]
    return "\n\n".join(sections) + "\n"


def boards(shown: Iterable[Result]) -> list[str]:
    """What comes first: the searches with the widest choice of optimizers, figure and table."""
    sections = []
    for study, title in BOARDS.items():
        of_study = [result for result in shown if result.manifest["study"] == study]
        sections += [f"## {title}"] if of_study else []
        for result in of_study:
            table = pd.read_csv(result.folder / TABLE, dtype=str, keep_default_na=False)
            lines = [list(table), *table.to_numpy().tolist()]
            sections += [
                picture(result),
                markdown_table(lines),
                f"[Report]({result.folder.name}/report.md).",
            ]
    return sections


def picture(result: Result) -> str:
    """The figure of a study."""
    return f"![{result.folder.name}]({result.folder.name}/{FIGURE})"


def one_by_one(shown: Sequence[Result]) -> list[str]:
    """Every claim: the paper's figures with ours beside them, then what else was asked."""
    claims = answers(shown)
    sources = {claim["source"] for claim in claims}
    figures = sorted(sources - TITLES.keys())
    sections = ["## The paper's figures, one by one"] if figures else []
    for source in figures:
        of_source = [claim for claim in claims if claim["source"] == source]
        pictures = [
            picture(result)
            for result in shown
            if result.manifest["study"] not in (*BOARDS, DECIDES)  # theirs come first on the page
            and any(claim["source"] == source for claim in result.claims())
        ]
        sections += [f"### {source.capitalize()}", *pictures, claims_table(of_source)]
    sections += ["## Every other claim"] if sources & TITLES.keys() else []
    for source, title in TITLES.items():
        if of_source := [claim for claim in claims if claim["source"] == source]:
            sections += [f"### {title}", claims_table(of_source)]
    return sections


def claims_table(claims: Iterable[Claim]) -> str:
    """A row per claim, and a line in its last cell for each number."""
    table = [["question", "data set", "answer", "measured here"]]
    for claim in claims:
        numbers = claim["measured"].replace("; ", "<br>")
        table.append([claim["question"], claim["data"], claim["answer"], numbers])
    return markdown_table(table)


def main(folder: Path = Path("docs/results")) -> None:
    """Writes the page of results into the folder that holds the studies' folders.

    Args:
      folder: where the studies' folders are.
    """
    (folder / PAGE).write_text(page(folder), "utf-8")


if __name__ == "__main__":
    tyro.cli(main)
