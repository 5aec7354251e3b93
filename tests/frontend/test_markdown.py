"""A model's text as nodes: well-formed where it is markdown, harmless whatever it is."""

from typing import Any

import pytest
from playwright.async_api import expect

from tests.frontend.conftest import OpenTab
from tests.support.scripted_provider import ok, text

MODULE = "/static/frontend/markdown-dom.js"

#: Draws each text whole and at every cut, and tells what doesn't belong: elements, attributes, addresses.
DRAW_AND_INSPECT = """async ({module, texts, cuts}) => {
    const {MarkdownView} = await import(module);
    const elements = new Set("P H3 H4 H5 H6 STRONG EM S CODE PRE FIGURE FIGCAPTION BLOCKQUOTE UL OL LI HR BR TABLE "
        .concat("THEAD TBODY TR TH TD DIV SPAN A").split(" "));
    const attributes = new Set("href rel target class tabindex dir start".split(" "));
    const found = [];
    const inspect = (root, text) => {
        for (const element of root.querySelectorAll("*")) {
            if (!elements.has(element.tagName)) found.push([text, element.tagName]);
            for (const {name} of element.attributes) if (!attributes.has(name)) found.push([text, name]);
            if (element.tagName === "A" && !/^https?:$/.test(element.protocol)) found.push([text, element.href]);
            if (element.tagName === "A" && !element.rel.includes("noopener")) found.push([text, "rel"]);
        }
    };
    for (const text of texts) {
        const root = document.body.appendChild(document.createElement("div"));
        const view = new MarkdownView(root);
        for (let end = 1; cuts && end < text.length; end += 1) {
            view.update(text.slice(0, end), {open: true});
            inspect(root, text);
        }
        view.update(text);
        inspect(root, text);
        root.addEventListener("click", (event) => event.preventDefault());
        for (const element of root.querySelectorAll("*")) {
            element.click();
            element.dispatchEvent(new Event("mouseover"));
        }
        root.remove();
    }
    return found;
}"""

PAYLOADS = (
    "javascript:window.ran=1",
    "JaVaScRiPt:window.ran=1",
    " javascript:window.ran=1",
    "java\tscript:window.ran=1",
    "javascript&colon;window.ran=1",
    "&#106;avascript:window.ran=1",
    "\x01javascript:window.ran=1",
    "vbscript:msgbox(1)",
    "data:text/html,<script>window.ran=1</script>",
    "data:text/html;base64,PHNjcmlwdD53aW5kb3cucmFuPTE8L3NjcmlwdD4=",
    "blob:https://evil.example/1",
    "file:///etc/passwd",
    "//evil.example/x",
    "/accounts/logout/",
    "https:evil.example",
    'http://evil.example/"onmouseover="window.ran=1',
    "https://evil.example/'><script>window.ran=1</script>",
    "http://[::1",
    "https://user:pass@evil.example",
)
WRAPPERS = (
    "[x]({})",
    "[x](<{}>)",
    "![x]({})",
    "[![x]({})]({})",
    "<{}>",
    '[x]({} "title")',
    "**[x]({})**",
    "| a | b |\n|---|---|\n| [x]({}) | {} |",
)
RAW = (
    "<script>window.ran=1</script>",
    "<img src=x onerror=window.ran=1>",
    "<img src='https://evil.example/p.png'>",
    "<svg onload=window.ran=1><script>window.ran=1</script></svg>",
    "<iframe src='https://evil.example'></iframe>",
    "<iframe srcdoc='<script>parent.ran=1</script>'></iframe>",
    "<a href='javascript:window.ran=1'>x</a>",
    "<style>@import 'https://evil.example/x.css'; * {display: none}</style>",
    "<link rel=stylesheet href='https://evil.example/x.css'>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<base href='https://evil.example/'>",
    "<form action='https://evil.example'><button>x</button></form>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.ran=1></style></mglyph></table></mtext></math>",
    "<noscript><p title='</noscript><img src=x onerror=window.ran=1>'></noscript>",
    "<svg><style><img src=x onerror=window.ran=1></style></svg>",
    "<template><script>window.ran=1</script></template>",
    "<object data='https://evil.example'></object><embed src='https://evil.example'>",
    "<video><source onerror=window.ran=1></video>",
    "<details open ontoggle=window.ran=1>x</details>",
    "<input autofocus onfocus=window.ran=1>",
    "`<script>window.ran=1</script>`",
    "```html\n<script>window.ran=1</script>\n```",
    '```"><script>window.ran=1</script>\ncode\n```',
    "~~~<img/src=x/onerror=window.ran=1>\ncode",
    "# <img src=x onerror=window.ran=1>",
    "- <img src=x onerror=window.ran=1>\n  1. <script>window.ran=1</script>",
    "> <img src=x onerror=window.ran=1>",
    "| <img src=x onerror=window.ran=1> |b|\n|---|---|\n| <script>window.ran=1</script> | c |",
    "[x]: javascript:window.ran=1\n\n[x]",
    "[x][y]\n\n[y]: javascript:window.ran=1 'z'",
    "&lt;script&gt;window.ran=1&lt;/script&gt;",
    "\u202e<script>window.ran=1</script>\u202c",
    "\ufeff<script>window.ran=1</script>",
    "<scr\u0000ipt>window.ran=1</scr\u0000ipt>",
    "[__proto__](https://evil.example) [constructor](javascript:window.ran=1)",
    "${window.ran=1} {{window.ran=1}} <%window.ran=1%>",
    "<!--><script>window.ran=1</script>-->",
    "<![CDATA[<script>window.ran=1</script>]]>",
    "<?xml version='1.0'?><x/>",
    "**<b onclick=window.ran=1>*x*</b>**",
    "[<img src=x onerror=window.ran=1>](https://evil.example)",
)
HOSTILE = [*RAW, *(wrapper.replace("{}", payload) for wrapper in WRAPPERS for payload in PAYLOADS)]


async def test_hostile_texts_become_text_at_every_moment_of_their_stream(open_tab: OpenTab) -> None:
    assert len(HOSTILE) >= 150
    tab = await open_tab()
    found = await tab.page.evaluate(DRAW_AND_INSPECT, {"module": MODULE, "texts": HOSTILE, "cuts": True})
    assert found == []
    assert await tab.page.evaluate("window.ran") is None


async def test_hostile_answers_run_nothing_and_load_nothing(open_tab: OpenTab, provider: Any) -> None:
    provider.script("hostile", text(*(f"{case}\n\n" for case in HOSTILE)), ok())
    tab = await open_tab()
    await tab.ask(f"<img src=x onerror=window.ran=1> {RAW[0]} [[hostile]]")
    await expect(tab.answers.last).to_have_attribute("data-status", "complete")
    await expect(tab.questions.first).to_contain_text("<img src=x onerror=window.ran=1> <script>")
    assert await tab.page.evaluate("window.ran") is None
    await tab.page.reload()
    await expect(tab.answers.last).to_have_attribute("data-status", "complete")
    assert await tab.page.evaluate("window.ran") is None


#: Markdown and its nodes, written as `tag(children)`, text in quotes.
WELL_FORMED = [
    ("plain & <b>text</b>", 'p("plain & <b>text</b>")'),
    ("**bold** *it* ***both*** ~~no~~", 'p(strong("bold") " " em("it") " " strong(em("both")) " " s("no"))'),
    ("**a *b* c**", 'p(strong("a " em("b") " c"))'),
    ("5 * 3 * 2 and snake_case_name", 'p("5 * 3 * 2 and snake_case_name")'),
    ("`a*b*` ``c`d``", 'p(code("a*b*") " " code("c`d"))'),
    ("\\*no\\*", 'p("*no*")'),
    ("# One\n## Two ##", 'h3("One") h4("Two")'),
    ("- a\n- b\n  - c", 'ul(li("a") li("b" ul(li("c"))))'),
    ("3. a\n4. b", 'ol(li("a") li("b"))'),
    ("- a\n\n  b", 'ul(li("a" p("b")))'),
    ("> q\n> r", 'blockquote(p("q" br() "r"))'),
    ("```py\nx = 1\n```\nafter", 'figure(figcaption("py") pre(code("x = 1"))) p("after")'),
    ("a\n\n---\n\nb", 'p("a") hr() p("b")'),
    ("|a|b|\n|---|--:|\n|1|2|", 'div(table(thead(tr(th("a") th("b"))) tbody(tr(td("1") td("2")))))'),
    ("[x](https://a.example/b_(c))", 'p(a("x"))'),
    ("see https://a.example/b. Yes", 'p("see " a("https://a.example/b") ". Yes")'),
    ("[1] and [2, 3]", 'p("[1] and [2, 3]")'),
]

DRAW = """async ({module, text, open}) => {
    const {MarkdownView} = await import(module);
    const root = document.createElement("div");
    new MarkdownView(root).update(text, {open});
    const show = (node) => node.nodeType === 3 ? JSON.stringify(node.data)
        : `${node.localName}(${[...node.childNodes].map(show).join(" ")})`;
    root.normalize();
    return [...root.childNodes].map(show).join(" ");
}"""


async def test_markdown_becomes_the_nodes_it_means(open_tab: OpenTab) -> None:
    tab = await open_tab()
    for source, nodes in WELL_FORMED:
        assert await tab.page.evaluate(DRAW, {"module": MODULE, "text": source, "open": False}) == nodes, source


@pytest.mark.parametrize(
    ("begun", "nodes"),
    [
        ("a **bo", 'p("a " strong("bo"))'),
        ("a **", 'p("a ")'),
        ("a `co", 'p("a " code("co"))'),
        ("a [li](https://exa", 'p("a " span("li"))'),
        ("years [1", 'p("years ")'),
        ("```py\nx = 1\n``", 'figure(figcaption("py") pre(code("x = 1")))'),
    ],
)
async def test_what_is_still_being_written_shows_no_bare_marks(open_tab: OpenTab, begun: str, nodes: str) -> None:
    tab = await open_tab()
    assert await tab.page.evaluate(DRAW, {"module": MODULE, "text": begun, "open": True}) == nodes


async def test_drawing_by_pieces_ends_in_the_same_nodes_as_drawing_at_once(open_tab: OpenTab) -> None:
    tab = await open_tab()
    whole = "\n\n".join(source for source, _ in WELL_FORMED)
    same = await tab.page.evaluate(
        """async ({module, text}) => {
            const {MarkdownView} = await import(module);
            const [grown, once] = [0, 1].map(() => new MarkdownView(document.createElement("div")));
            for (let end = 1; end <= text.length; end += 3) grown.update(text.slice(0, end), {open: true});
            grown.update(text);
            once.update(text);
            return grown.root.isEqualNode(once.root);
        }""",
        {"module": MODULE, "text": whole},
    )
    assert same


async def test_no_text_keeps_the_page_busy(open_tab: OpenTab) -> None:
    tab = await open_tab()
    texts = [
        piece * (200_000 // len(piece))
        for piece in ("*a ", "[", "`a``", "> ", "- ", "[a](", "**a*b_c~~", "|a", "# ", "<http://")
    ]
    spent = await tab.page.evaluate(
        """async ({module, texts}) => {
            const {MarkdownView} = await import(module);
            return texts.map((text) => {
                const begun = performance.now();
                new MarkdownView(document.createElement("div")).update(text, {open: true});
                return performance.now() - begun;
            });
        }""",
        {"module": MODULE, "texts": texts},
    )
    assert max(spent) < 3_000, spent
