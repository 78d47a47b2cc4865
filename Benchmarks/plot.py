#!/usr/bin/env python3
"""The results of peers.py as a picture: for every figure two bars, Graft's and llama.cpp's, each pair on a scale of its own, with the ratio beside it.

usage: plot.py RESULTS.json [RESULTS.json …] --out FILE.svg [--title TEXT]
Takes the figures that both engines have, in the order of the files. Python 3.11, standard library only.
"""

import argparse
import html
import json
import sys
from pathlib import Path

# Pixels.
LABEL, BAR, RATIO, ROW, HEAD, FOOT = 300, 330, 150, 46, 52, 28
COLOURS = {"graft": "#2f6f4f", "llama.cpp": "#b9b2a3"}
# Of these less is better.
LESS = (" s", " MB", "share of unseen")
LEFT_OUT = ("load average", "of which")


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def pairs(documents):
    """(model, figure, medians by engine) of what both have."""
    for document in documents:
        for result in document["results"]:
            for figure, engines in result["figures"].items():
                if figure.startswith(LEFT_OUT) or not all(engines.get(name, {}).get("median", 0) > 0 for name in COLOURS):
                    continue
                yield result["model"].removesuffix(".gguf"), figure, {name: engines[name]["median"] for name in COLOURS}


def picture(rows, title, foot):
    width, height = LABEL + BAR + RATIO, HEAD + ROW * len(rows) + FOOT
    text = lambda x, y, content, more="": f'<text x="{x}" y="{y:g}" {more}>{html.escape(content)}</text>'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        text(12, 22, title, 'font-size="15" font-weight="bold"'),
    ]
    for i, (engine, colour) in enumerate(COLOURS.items()):
        lines += [f'<rect x="{LABEL + 90 * i}" y="32" width="11" height="11" fill="{colour}"/>', text(LABEL + 16 + 90 * i, 42, engine.replace("graft", "Graft"))]
    several = len({model for model, _, _ in rows}) > 1
    for i, (model, figure, values) in enumerate(rows):
        top, most = HEAD + ROW * i, max(values.values())
        lines.append(text(LABEL - 12, top + (18 if several else 24), figure, 'text-anchor="end"'))
        if several:
            lines.append(text(LABEL - 12, top + 34, model, 'text-anchor="end" font-size="11" fill="#777"'))
        for j, (engine, value) in enumerate(values.items()):
            length = max(2, (BAR - 60) * value / most)
            lines.append(f'<rect x="{LABEL}" y="{top + 4 + 17 * j}" width="{length:.1f}" height="15" fill="{COLOURS[engine]}"/>')
            lines.append(text(f"{LABEL + length + 6:.1f}", top + 16 + 17 * j, number(value), 'font-size="12"'))
        less = figure.endswith(LESS)
        ratio = values["graft"] / values["llama.cpp"]
        lines.append(text(width - 12, top + 24, f"{ratio:.2f} ×" + (" (less is better)" if less else ""), 'text-anchor="end"'))
    lines += [text(12, height - 10, foot, 'font-size="11" fill="#777"'), "</svg>"]
    return "\n".join(lines) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("results", type=Path, nargs="+")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--title")
    options = p.parse_args()
    try:
        documents = [json.loads(path.read_text()) for path in options.results]
        rows = list(pairs(documents))
    except (OSError, ValueError, KeyError) as error:
        print(f"plot.py: {error!r}: expected files that `peers.py --out` has written", file=sys.stderr)
        return 1
    if not rows:
        print("plot.py: no figure that both engines have", file=sys.stderr)
        return 1
    first = documents[0]
    foot = f"{first['peer']}; {first['machine']['cores']} cores, {first['machine']['cpu']}; {', '.join(sorted({d['date'] for d in documents}))}; medians"
    options.out.write_text(picture(rows, options.title or ", ".join(dict.fromkeys(model for model, _, _ in rows)), foot))
    return 0


if __name__ == "__main__":
    sys.exit(main())
