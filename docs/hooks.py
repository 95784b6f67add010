"""The site has what lies beside docs/ too: the project's own pages (security, ...) and built reports."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = ("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add them, and the dashboard's icon; their links into docs/ become links within the site."""
    for name in PAGES:
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, name, content=text))
    files.append(File.generated(config, "icon.png", abs_src_path=str(ROOT / "dgviz" / "app" / "icon.png")))
    for report in sorted((ROOT / "build" / "gallery").glob("*.html")):
        files.append(File.generated(config, f"gallery/{report.name}", abs_src_path=str(report)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links out of docs/ into links to the pages that were added; say of a report that it was not built."""
    up = "../" * page.file.src_uri.count("/")
    if page.file.src_uri == "gallery.md":
        for name in re.findall(r"\]\((gallery/[^)]+)\)", markdown):
            if files.get_file_from_path(name) is None:
                markdown = re.sub(rf"\[([^]]+)\]\({name}\)", r"\1 (not built here)", markdown)
    return re.sub(rf"\]\((?:\.\./)+({'|'.join(map(re.escape, PAGES))})", rf"]({up}\1", markdown)
