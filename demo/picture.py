# SPDX-License-Identifier: GPL-2.0-only
"""Answers over time, as lines of text and as an SVG."""

BIN = 10.0  # ms
LEFT, TOP, WIDTH, HEIGHT, GAP = 60, 40, 900, 150, 60


def bins(answers, begin, end, width):
    counts = [0] * max(1, int((end - begin) / width))
    for t in answers:
        i = int((t - begin) / width)
        if 0 <= i < len(counts):
            counts[i] += 1
    return counts


def span(all_answers):
    return -500.0, max(min(max(a), 1e5) for a in all_answers.values() if a) + BIN


def strip(all_answers, columns=100):
    """One line for each; the darker, the more answers."""
    begin, end = span(all_answers)
    width = (end - begin) / columns
    for name, answers in all_answers.items():
        counts = bins(answers, begin, end, width)
        most = max(max(counts), 1)
        yield "%-6s|%s|" % (name, "".join(" .:+#"[min(4, (4 * c + most - 1) // most)] for c in counts))
    yield "%-6s %d ms each; the dump begins at column %d" % ("", width, int(-begin / width))


def svg(all_answers):
    begin, end = span(all_answers)
    high = TOP + len(all_answers) * (HEIGHT + GAP)
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="13">'
           % (LEFT + WIDTH + 30, high), '<rect width="100%" height="100%" fill="white"/>']
    most = max(max(bins(a, begin, end, BIN)) for a in all_answers.values()) or 1
    for row, (name, answers) in enumerate(all_answers.items()):
        base = TOP + row * (HEIGHT + GAP) + HEIGHT
        out.append('<text x="%d" y="%d">%s: requests answered in each 10 ms</text>' % (LEFT, base - HEIGHT - 8, name))
        counts = bins(answers, begin, end, BIN)
        each = WIDTH / len(counts)
        for i, c in enumerate(counts):
            if c:
                h = HEIGHT * c / most
                out.append('<rect x="%.2f" y="%.2f" width="%.2f" height="%.2f" fill="#3a6ea5"/>' % (
                    LEFT + i * each, base - h, max(each, 0.5), h))
        out.append('<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="black"/>' % (LEFT, base, LEFT + WIDTH, base))
        out.append('<text x="%d" y="%d" text-anchor="end">%d</text>' % (LEFT - 6, base - HEIGHT + 5, most))
        step = next(s for s in (100, 200, 500, 1000, 2000, 5000, 10000, 20000) if (end - begin) / s <= 12)
        tick = 0
        while tick < end:
            x = LEFT + (tick - begin) / (end - begin) * WIDTH
            out.append('<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="black"/>' % (x, base, x, base + 4))
            out.append('<text x="%.1f" y="%d" text-anchor="middle">%g s</text>' % (x, base + 18, tick / 1000))
            tick += step
        x = LEFT - begin / (end - begin) * WIDTH
        out.append('<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#c03030" stroke-dasharray="4 3"/>' % (
            x, base - HEIGHT, x, base))
    out.append("</svg>\n")
    return "\n".join(out)
