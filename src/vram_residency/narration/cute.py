"""The friendly mode: one sentence and an emoji for each action; device memory is a nest.

Only emoji that stand alone are used: the variation selector of the others is one of the invisible
characters that are escaped.
"""

from __future__ import annotations

from typing import Final

CUTE: Final = {
    "init": "Found a tree with {count} GPU(s) and room for {size} of cozy nests! 🌳",
    "seal": "Tucked {id} safely into {nest}'s warm {size} nest! 🪺",
    "verify": "Peeked into {nest}'s nest and found {id} sleeping just as we left it! 🔍",
    "verify_failed": "Oh no, {id} is not how we left it in {nest}'s nest ({reason})! 🚨",
    "allocate": "Wove a fresh {allocated} nest on {nest} and have {available} of twigs left! 🪹",
    "allocate_failed": "A {requested} nest won't fit on {nest}, where only {available} of twigs are left! 🍂",
    "deallocate": "Off flew {id} and left {freed} of {nest}'s nest to the next egg! 🐦",
    "policy_violation": "That on {nest} is no real nest ({violation}), so here is what we did: {action}! ⛔",
    "digest": "Counted every feather in a {size} nest with {algorithm}! 🧮",
    "sign": "Pressed our very own seal onto {id}'s nest! 🔏",
    "cuda_init": "{Nest} woke up as {name}, a {size} tree full of branches for nests! 🐣",
    "validate_failed": "This egg may not come into the nest, because of {what} ({reason})! 🙅",
    "capacity_query": "{Nest}'s nest has {available} to spare and {used} already filled! 📏",
}
