"""Links between pages of docs/ and files beside docs/: which files the site needs, where they are on it, and how pages lead there."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

# Where the site has the files from beside docs/.
FOLDER = "repository/"
_LINK = re.compile(r"(\]\()([^()\s#]+)(#[^()\s]*)?(\))")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".h": "cpp", ".cpp": "cpp", ".kt": "kotlin", ".sh": "bash", ".txt": "text"}


def linked_files(repository: Path) -> list[PurePosixPath]:
    """The files beside docs/ that pages lead to, also from one another, relative to the repository."""
    waiting = [PurePosixPath("README.md"), *(_relative(repository, path) for path in sorted((repository / "docs").rglob("*.md")))]
    found: dict[PurePosixPath, None] = {}
    while waiting:
        page = waiting.pop()
        for match in _LINK.finditer((repository / page).read_text(encoding="utf-8")):
            target = _target(repository, page, match[2])
            if target is None or _in_docs(target) or target == PurePosixPath("README.md") or target in found:
                continue
            found[target] = None
            if target.suffix in (".md", ".ipynb"):
                waiting.append(target)
    return sorted(found)


def is_page(path: PurePosixPath) -> bool:
    """Whether a file is shown as a page; others are copied."""
    return path.suffix in (".md", ".ipynb", *_LANGUAGES) or not path.suffix


def address_of(path: PurePosixPath) -> str:
    """The place of a file of the repository on the site, as MkDocs calls it before it makes HTML."""
    if path == PurePosixPath("README.md"):
        return "index.md"
    if _in_docs(path):
        return path.relative_to("docs").as_posix()
    return f"{FOLDER}{path}" if path.suffix == ".md" or not is_page(path) else f"{FOLDER}{path}.md"


def source_of(address: str) -> PurePosixPath | None:
    """The file of the repository that a page of the site was made of and whose links it has; None for what was generated."""
    if address == "index.md":
        return PurePosixPath("README.md")
    if address.startswith(FOLDER):
        path = PurePosixPath(address.removeprefix(FOLDER))
        if path.stem.endswith(".ipynb"):
            return path.with_suffix("")
        return path if not path.stem.endswith(tuple(_LANGUAGES)) else None
    return PurePosixPath("docs") / address


def page_of(repository: Path, path: PurePosixPath) -> str:
    """A file as Markdown; code is left out of the search, which would find little else."""
    text = (repository / path).read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    if path.suffix == ".ipynb":
        return _notebook(json.loads(text))
    return f"---\nsearch: {{exclude: true}}\n---\n\n# {path}\n\n`````{_LANGUAGES.get(path.suffix, 'text')}\n{text}\n`````\n"


def _notebook(content: dict[str, Any]) -> str:
    """A notebook as Markdown: its text, code, and what the code printed and drew."""
    parts = []
    for cell in content["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"`````python\n{source}\n`````")
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            picture = next((kind for kind in data if kind.startswith("image/")), None)
            if picture:
                encoded = "".join(data[picture]).replace("\n", "")
                parts.append(f'<img alt="what the code above draws" src="data:{picture};base64,{encoded}">')
            else:
                parts.append(f"`````text\n{''.join(data['text/plain']).rstrip()}\n`````")
    return "\n\n".join(parts) + "\n"


def rewritten(repository: Path, page: PurePosixPath, markdown: str) -> str:
    """Markdown whose links lead to where the files are on the site; what leads to no file is left to MkDocs to judge."""

    def lead(match: re.Match[str]) -> str:
        target = _target(repository, page, match[2])
        if target is None:
            return match[0]
        address = os.path.relpath(address_of(target), PurePosixPath(address_of(page)).parent)
        return f"{match[1]}{address}{match[3] or ''}{match[4]}"

    return _LINK.sub(lead, markdown)


def _target(repository: Path, page: PurePosixPath, link: str) -> PurePosixPath | None:
    """The file that a link of a page leads to; of a folder its README."""
    if re.match(r"[a-z]+:|/", link):
        return None
    path = (repository / page).parent.joinpath(link).resolve()
    if path.is_dir():
        path /= "README.md"
    return _relative(repository, path) if path.is_file() and path.is_relative_to(repository) else None


def _in_docs(path: PurePosixPath) -> bool:
    return path.parts[0] == "docs"


def _relative(repository: Path, path: Path) -> PurePosixPath:
    return PurePosixPath(path.relative_to(repository).as_posix())
