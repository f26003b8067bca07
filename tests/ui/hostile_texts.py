"""200 texts by which a model's answer might run a script, ask another host, or lead the user away."""

from __future__ import annotations

#: `N` is the marker of the text, which must be seen; `hacked` is what a script would set.
FORMS = (
    "<script>window.hacked = 'N'</script>",
    "<img src=x onerror=\"window.hacked='N'\">",
    "<svg onload=\"window.hacked='N'\"></svg>",
    "<iframe srcdoc=\"<script>parent.hacked='N'</script>\"></iframe>",
    "<a href=\"javascript:window.hacked='N'\">N</a>",
    "[N](javascript:window.hacked=1)",
    "[N](JaVaScRiPt:window.hacked=1)",
    "[N](java&#115;cript:window.hacked=1)",
    "[N](data:text/html,<script>alert(1)</script>)",
    "[N](vbscript:alert(1))",
    "[N](file:///etc/passwd)",
    "[N](//other.example/x)",
    "[N](#/keys)",
    "<javascript:alert('N')>",
    "![N](https://other.example/pixel.png)",
    "![N](data:image/svg+xml,<svg/onload=alert(1)>)",
    "[![N](https://other.example/p.png)](https://other.example/)",
    "[N](https://other.example/?a=1)",
    "[N](mailto:a@other.example)",
    "<form action=https://other.example><input name=N></form>",
    "<style>body{display:none}</style>N",
    "<link rel=stylesheet href=https://other.example/N.css>",
    "<meta http-equiv=refresh content='0;url=https://other.example/N'>",
    "<base href=https://other.example/N/>",
    "<object data=https://other.example/N></object>",
    "<video src=https://other.example/N autoplay></video>",
    "> <script>window.hacked='N'</script>",
    "- <img src=x onerror=window.hacked='N'>",
    "`<script>window.hacked='N'</script>`",
    "```html\n<script>window.hacked='N'</script>\n```",
    '```N"><script>window.hacked=1</script>\ntext\n```',
    "| N | <img src=x onerror=window.hacked=1> |\n|---|---|\n| <script>alert(1)</script> | [x](javascript:alert(1)) |",
    "# <script>window.hacked='N'</script>",
    "**<svg/onload=window.hacked='N'>**",
    "~~<img src=`x` onerror=window.hacked='N'>~~",
    "N \u202e<script>window.hacked=1</script>\u202c",
    "N \u200b<\u200bscript>window.hacked=1</script>",
    "&lt;script&gt;window.hacked='N'&lt;/script&gt;",
    "{{constructor.constructor('window.hacked=1')()}} N ${window.hacked=1}",
    "N \x1b]8;;https://other.example\x1b\\link\x1b]8;;\x1b\\ \x1b[31mred",
)


def marker(number: int) -> str:
    return f"m{number:03d}m"


#: Each form five times, among others: alone, between words, nested in a quote and in a list, and after an open tag.
AROUND = ("{}", "before {} after", "> {}", "1. {}", "<div {}")
HOSTILE = tuple(
    around.format(form.replace("N", marker(n)))
    for n, (form, around) in enumerate((form, around) for around in AROUND for form in FORMS)
)
