"""Names of the methods, in the order of the table. No torch here: ``bench accuracy --help`` reads this."""

from __future__ import annotations

METHODS: dict[str, str] = {
    "simplecil": "class means of frozen features, no training (arXiv 2303.07338)",
    "ridge": "closed-form ridge head on frozen features",
    "ranpac": "ridge on 1,000 random ReLU features (arXiv 2307.02251)",
    "lda": "linear discriminant analysis on frozen features, OAS shrinkage (arXiv 1909.01520, 0907.4698)",
    "head": "first-order cosine head, frozen backbone",
    "zo-fc": "zeroth-order adapter, first-order head, through the device runtime (arXiv 2510.21019)",
    "fo-fc": "the same adapter and cosine head, both first order",
    "fo-fc-lda": "the edge preset's adapter and closed-form head, the adapter first order",
    "fo-episodic": "the edge preset's adapter, head and episodic loss, first order, in the first task alone",
    "fo-episodic-balanced": "the same in the coordinates of balanced directions",
    "fo-episodic-move": "fo-episodic in every task",
    "fo-episodic-drift": "the same, earlier classes' statistics moved by a map (arXiv 2004.00440, 2407.08536)",
    "zo-all": "the adapter and the cosine head, both zeroth order",
    "fo-adapter+zo-head": "the adapter first order, the cosine head zeroth order",
    "aper-adapter": "APER with AdaptFormer (arXiv 2303.07338)",
    "aper-lda": "APER's adapter under the closed-form head of the edge preset",
    "aper-zo": "APER, zeroth order",
    "ease": "EASE (arXiv 2403.12030)",
    "ease-zo": "EASE, zeroth order",
    "inflora": "InfLoRA (arXiv 2404.00228)",
    "inflora-zo": "InfLoRA, zeroth-order LoRA, first-order head",
    "lae": "LAE with adapters (arXiv 2303.10070)",
    "l2p": "L2P (arXiv 2112.08654)",
    "l2p-zo": "L2P, zeroth order",
    "dualprompt": "DualPrompt (arXiv 2204.04799)",
    "coda-prompt": "CODA-Prompt (arXiv 2211.13218)",
    "coda-prompt-zo": "CODA-Prompt, zeroth order (ZO-Adam)",
}
EXPERIMENTS: dict[str, str] = {
    "zo-fc-torch": "zo-fc in torch, where there is a gradient to compare with",
    "zo-fc-up": "the same, of the adapter the up-projections alone",
}
"""Methods of ``bench questions`` that have no row in the comparison."""
TRAINING_FREE = frozenset({"simplecil", "ridge", "ranpac", "lda"})
MOVE_LATER = frozenset({"fo-episodic-move", "fo-episodic-drift"})
EPISODIC = MOVE_LATER | {"fo-episodic", "fo-episodic-balanced"}
ANY_BACKBONE = TRAINING_FREE | EPISODIC | {"head", "zo-fc", "fo-fc", "fo-fc-lda", "zo-all", "fo-adapter+zo-head"}
"""Methods that take any backbone that can be exported. The others change a ViT from within."""
SEARCH_FACTORS = (1.0, 10.0, 3.0, 0.3, 0.1)
"""``--search N`` multiplies every learning rate by the first N of these. Larger factors come first, because a short
stream gives a method far fewer steps than its paper does."""
EQUAL_FORWARDS = frozenset({"head", "fo-fc", "fo-fc-lda"})
"""Methods whose epochs are multiplied under ``--equal forwards``: one look at a picture and epoch."""


def best(searched: dict[str, float]) -> float:
    """The factor of the highest accuracy. Of equals it is the one tried first, so 1 wins where nothing is better."""
    return float(max(searched, key=searched.__getitem__))
