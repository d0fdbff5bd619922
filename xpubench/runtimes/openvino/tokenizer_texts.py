"""The texts on which an export compares the tokenizer's IR with transformers' tokenizer."""

from random import Random

WANTED = 320
# Sentences in many scripts, code and markup, white space, numbers, emoji and symbols, and words in edge
# cases.
PIECES = (
    *("The river was low that summer.", "We'll see what they've got, won't we?"),
    *("It's 5 o'clock; don't wait!", "Über den Dächern grüßt ein Mädchen."),
    *("Ça dépend, où étiez-vous à Noël ?", "El niño comió piñones.", "Zażółć gęślą jaźń."),
    *("Příliš žluťoučký kůň.", "İstanbul'da ılık bir gün.", "Tiếng Việt có dấu."),
    *("Широкая река течёт на юг.", "Καλημέρα, τι κάνεις;", "שלום לכולם", "مرحبا بالعالم"),
    *(
        "नमस्ते दुनिया",
        "สวัสดีชาวโลก",
        "今天天气很好,我们去公园吧。",
        "繁體中文也要試試。",
        "東京は夜の七時です。",
        "안녕하세요 여러분",
    ),
    *("for i in range(10):\n    print(i, end='')\n", "if (a != b && c <= d) { return x->y[3]; }"),
    *('{"name": "x", "list": [1, 2.5, null]}', "SELECT * FROM t WHERE a='b';"),
    *("<div class='a'>&nbsp;</div>", "def f(x: int) -> str:\n\treturn f'{x!r:>8}'"),
    *("#include <stdio.h>\r\nint main(void){}", "$\\frac{1}{2}$", "https://example.org/a?b=c&d=%20#e"),
    *("user.name+tag@example.com", "C:\\Temp\\new\\table.txt", "| a | b |\n|---|", " ", "  ", "\n"),
    *("\n\n\n", "\t\t", " \n \n", "    four", "end   ", "\xa0no-break", "\u3000wide", "a\u200bb", "0"),
    *("007", "1234567890", "3.14159", "1,000,000", "12:34:56", "2026-11-28", "+49 30 123456", "1e-5"),
    *("0xFF", "٣٤٥", "Ⅳ", "½", "x²", "😀", "👩\u200d👩\u200d👧\u200d👦", "🇩🇪🇫🇷", "❤️", "👍🏽", "€ £ ¥", "…"),
    *("“quoted” — ‘so’", "→ ≤ ∞", "é decomposed", "a", "ZZZ", "camelCaseWord", "SCREAMING_SNAKE"),
    *("un-believ-able", "!!!???", "...", "'s", "''", "--", "x" * 40),
)


def texts(special: list[str]) -> list[str]:
    """The texts, the same ones each time: each piece alone, each special token of the tokenizer within a
    text, and random concatenations of pieces, one of them long."""
    random = Random(0)
    found = ["", *PIECES, *(f"before{one}after {one} end" for one in special[:8])]
    while len(found) < WANTED - 1:
        count = random.randint(2, 6)
        found.append(random.choice(("", " ", " ", "\n")).join(random.choices(PIECES, k=count)))
    return [*found, " ".join(random.choices(PIECES, k=400))]
