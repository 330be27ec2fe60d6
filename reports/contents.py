"""A page's list of contents: links to its sections, after its first paragraphs."""

import re
from collections import Counter


def with_contents(page: str) -> str:
    """Put a line with a link to every section before the first one; a page without sections stays as it is.

    The anchors are those that GitHub and most readers of markdown give a heading.
    """
    headings = re.findall(r"^## (.+)$", page, flags=re.MULTILINE)
    if not headings:
        return page
    seen: Counter[str] = Counter()
    links = []
    for heading in headings:
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        links.append(f"[{heading}](#{anchor}{f'-{seen[anchor]}' if seen[anchor] else ''})")
        seen[anchor] += 1
    head, mark, rest = page.partition("\n## ")
    return f"{head}\n**Contents.** {' · '.join(links)}\n{mark}{rest}"
