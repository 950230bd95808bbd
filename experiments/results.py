"""The page of results: ``python -m experiments.results``. It shows what the studies wrote.

A study's `claims.csv` says what it found in words, with numbers that are rows of its
`comparisons.csv`. Nothing is computed here, and nothing that trains is imported.
"""

import dataclasses
import hashlib
import json
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from experiments.tables import markdown_table

Claim = dict[Hashable, Any]  # a row of a study's table of claims

PAGE, MANIFEST, CLAIMS = "README.md", "manifest.json", "claims.csv"


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


def headline(folder: Path) -> list[str]:
    """The questions that decide, on all data sets together, for the README too."""
    lines: dict[str, list[str]] = {}
    claims = [claim for claim in answers(find(folder)) if claim["headline"]]
    for claim in sorted(claims, key=lambda claim: -claim["n"]):
        text = f"  - {claim['data']}: **{claim['answer']}** ({claim['measured']})."
        lines.setdefault(claim["question"], [f"- *{claim['question']}*"]).append(text)
    return [line for of_question in lines.values() for line in of_question]


def page(folder: Path) -> str:
    """The page as Markdown, from what the studies below ``folder`` wrote."""
    results = find(folder)
    order = ["figure", "its", "abstract", "not"]  # the paper's figures first
    claims = [claim for claim in answers(results) if not claim["headline"]]
    claims.sort(key=lambda claim: (order.index(claim["source"].split()[0]), claim["source"]))
    table = [["where", "question", "data set", "answer", "measured here"]]
    table += [
        [claim[name] for name in ("source", "question", "data", "answer", "measured")]
        for claim in claims
    ]
    refused = [
        f"- {result.folder.name}: {result.refusal()}; run the study "
        f"{result.manifest['study']} anew."
        for result in results
        if result.refusal()
    ]
    links = [
        f"- [{result.folder.name}]({result.folder.name}/report.md)"
        for result in results
        if not result.refusal()
    ]
    pictures = [
        f"![{result.folder.name}]({result.folder.name}/figure.png)"
        for result in results
        if result.manifest["study"] == "verdict" and not result.refusal()
    ]
    return "\n".join(
        [
            "# Results",
            "",
            *headline(folder),
            "",
            "Made by `python -m experiments.results` from the `claims.csv` and `comparisons.csv` "
            "that the studies left in these folders; nothing is computed here. Δ is in percentage "
            "points of final test accuracy where nothing else is said, treatment minus control, "
            "paired by seed, with its 95% BCa interval. p is from sign flips and adjusted by Holm "
            "over the comparisons of its study: one-sided where the mean is above zero, two-sided "
            "where it is below. The answers follow from the verdicts that are explained in "
            "[how to read them](../results.md).",
            "",
            *(f"{picture}\n" for picture in pictures),
            "## The other claims, one by one",
            "",
            markdown_table(table),
            "",
            *(
                ["## Not shown, because their input has changed", "", *refused, ""]
                if refused
                else []
            ),
            "## Reports",
            "",
            *links,
            "",
        ]
    )


def main(folder: Path = Path("docs/results")) -> None:
    """Writes the page of results into the folder that holds the studies' folders.

    Args:
      folder: where the studies' folders are.
    """
    (folder / PAGE).write_text(page(folder), "utf-8")


if __name__ == "__main__":
    tyro.cli(main)
