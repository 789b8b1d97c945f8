"""The page of licences: kpose, the packages it stands on, data sets, weights, pictures.

Packages: the pins in constraints.txt, each with what the installed package's own metadata says. Weights: what their cards say.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kpose.checkpoint import read_card
from kpose.weights.pretrained import list_pretrained

REPOSITORY = Path(__file__).resolve().parents[1]
NOT_INSTALLED = "not installed where this page was made"
# The names that classifiers and free text have for what SPDX calls otherwise.
_SPDX = {
    "Apache Software License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "ISC License (ISCL)": "ISC",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD 3-Clause": "BSD-3-Clause",
    "FreeBSD": "BSD-2-Clause",
    "BSD License": "BSD",
    "Python Software Foundation License": "PSF-2.0",
}
_FILES = {"Licensed under the Apache License, Version 2.0": "Apache-2.0", "Permission is hereby granted, free of charge": "MIT"}
# None of them asks anything of code that merely imports the package. MPL-2.0 concerns changes to the package's own files.
ACCEPTED = {
    "0BSD",
    "Apache-2.0",
    "BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "HPND",
    "ISC",
    "MIT",
    "MIT-CMU",
    "MPL-2.0",
    "PSF-2.0",
    "Zlib",
    "Unlicense",
}

# Data sets that kpose reads and does not contain. What is said was read at the source named; nothing is guessed.
DATA_SETS = [
    ("COCO", "https://cocodataset.org", "annotations CC BY 4.0; each photo under the terms of Flickr"),
    ("MPII Human Pose", "http://human-pose.mpi-inf.mpg.de", "for research; commercial use not allowed; frames of YouTube videos"),
    ("LSP, LSP-Extended", "http://sam.johnson.io/research/lsp.html", "for research; photos from Flickr"),
    ("AI Challenger", "https://github.com/AIChallenger/AI_Challenger_2017", "not recorded here: read its terms before you train"),
    ("CrowdPose", "https://github.com/Jeff-sjtu/CrowdPose", "none stated in its README: ask before you train for more than research"),
]
PICTURES = [
    (
        "ceremony: an oath (`docs/pictures/pretrained*.jpg`, `demo.jpg`, `tflite/golden/ceremony.rgb`)",
        "U.S. Web Design System, npm package `@uswds/uswds`",
        "CC0",
    ),
    ("astronaut (`tflite/golden/astronaut.rgb`)", "NASA, by scikit-image", "public domain"),
    ("camera (`tflite/golden/camera.rgb`)", "scikit-image", "CC0"),
    ("synthetic people", "drawn by kpose", "as kpose"),
]


@dataclass(frozen=True)
class Package:
    """A pinned package: how kpose uses it, and its licence as SPDX writes it, as far as its metadata tell."""

    name: str
    version: str
    use: str
    licence: str


def packages() -> list[Package]:
    """All pins with their licences, those that kpose asks for itself first."""
    uses = dict(_uses())
    order = [*dict.fromkeys(uses.values()), "indirect"]
    found = []
    for line in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").split():
        name, version = line.split("==")
        found.append(Package(name, version, uses.get(canonicalize_name(name), "indirect"), licence_of(name)))
    return sorted(found, key=lambda package: (order.index(package.use), package.name.lower()))


def licence_of(name: str) -> str:
    """The licence of an installed package: its SPDX expression, else its classifier, short text, or licence file; empty for none."""
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED
    about = package.metadata
    if "License-Expression" in about:
        return about["License-Expression"]
    text = about["License"].strip() if "License" in about else ""
    if _SPDX.get(text):
        # More exact than the classifiers, which know a single BSD licence.
        return _SPDX[text]
    if re.fullmatch(r"[A-Za-z0-9.+-]+( (AND|OR) [A-Za-z0-9.+-]+)*", text) and text not in ("BSD", "UNKNOWN"):
        return text
    classifiers = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or [] if line.startswith("License :: ")]
    if classifiers:
        return " AND ".join(_SPDX.get(classifier, classifier) for classifier in classifiers)
    for file in package.files or []:
        if file.name.upper().startswith("LICEN"):
            content = file.read_text()
            return next((licence for words, licence in _FILES.items() if words in content), "")
    return ""


def parts(licence: str) -> list[str]:
    """The licences in an SPDX expression."""
    return re.findall(r"[A-Za-z0-9.+-]+", re.sub(r"\b(AND|OR|WITH)\b|[()]", " ", licence))


def page() -> str:
    """The page as Markdown."""
    lines = [
        "# Licences\n",
        "kpose is under Apache 2.0. What it stands on, reads and contains is listed here; the page is made from the packages' own metadata "
        "and the networks' own cards whenever the site is built. It is no legal advice.\n",
        "## Weights\n\nThey come inside of the package.\n",
        "| network | licence | made with |\n|---|---|---|",
    ]
    for name in list_pretrained():
        card = read_card(name)
        lines.append(f"| `{name}` | {card.licence} | {card.data} |")
    lines += ["\nWeights that you train follow the licences of the data you train them with.\n", "## Data sets\n"]
    lines += ["kpose reads them; it contains and fetches none.\n", "| data set | licence |\n|---|---|"]
    lines += [f"| [{name}]({home}) | {licence} |" for name, home, licence in DATA_SETS]
    lines += ["\n## Pictures\n", "| picture | from | licence |\n|---|---|---|"]
    lines += [f"| {name} | {source} | {licence} |" for name, source, licence in PICTURES]
    lines += [
        "\n## Packages\n",
        "The versions that are tested together (`constraints.txt`). Those of the core come with kpose; others only where asked for.\n",
    ]
    lines += ["| package | version | used by | licence |\n|---|---|---|---|"]
    lines += [f"| {package.name} | {package.version} | {package.use} | {package.licence} |" for package in packages()]
    return "\n".join(lines) + "\n"


def _uses() -> Iterator[tuple[str, str]]:
    """Which part of kpose asks for a package, by its canonical name; the core before the extras."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"core": project["dependencies"]} | {f"extra {name}": lines for name, lines in project["optional-dependencies"].items()}
    seen = {"kpose"}
    for use, lines in groups.items():
        for requirement in map(Requirement, lines):
            name = canonicalize_name(requirement.name)
            if name not in seen:
                seen.add(name)
                yield name, use
