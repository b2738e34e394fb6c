"""What a page of HTML holds, and text that would be code if it were not escaped."""

from __future__ import annotations

from html.parser import HTMLParser

ATTACK_ON_READER = "<script>alert('x')</script><img src=http://evil.test/a onerror=alert(1)>"


class Page(HTMLParser):
    """Collects the tags, the visible text and the scripts of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words, self.scripts = [], [], {}
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.script = dict(attrs).get("id", f"script {len(self.scripts)}")
            self.scripts[self.script] = ""

    def handle_endtag(self, _tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[self.script] += data
        elif self.inside != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())
