"""ZO-SGD-Conserve's second look at a batch: stay, go down the estimate or go up it, whichever loses least.

Two more forward passes a picture, at theta - lr g and theta + lr g (ZO-bench, arXiv 2402.11592; ZeroFlow, arXiv
2501.01045), each the very bits that the step would leave. The pictures are decoded a second time, so that memory
still does not depend on the batch.

What may surprise: by now the head has made its step. If a signal or a full memory ends the second look, the session
puts the head back with the rest of the state, so that the step is forgotten as a whole.
"""

from __future__ import annotations

import numpy as np

from edge_zofc.engine.trainer import Picked, Session
from edge_zofc.errors import ImageError
from edge_zofc.inference.features import readable_features


def of_best_side(
    session: Session,
    picked: Picked,
    base: np.ndarray,
    labels: np.ndarray,
    class_ids: np.ndarray,
    applied: np.ndarray,
) -> np.ndarray:
    """``applied`` float32 [Q] times 0 to stay, 1 for theta - lr g or -1 for theta + lr g; to stay wins a tie.

    The judge is the head's loss on the batch: ``base`` float32 [B, D] are the features at theta of the ``picked``
    pictures, ``labels`` int64 [B] positions in ``class_ids``. A picture that can no longer be read counts on no
    side; a side whose loss is not finite is not taken.
    """
    state, rate = session.state, session.options.adapter_lr
    sides = [state.adapter.candidate(state.progress.step, sign * applied, rate) for sign in (1, -1)]

    def lost(index: int, error: ImageError) -> None:
        session.leave_out(*picked[index], error)

    load = session.loader(picked)
    found = list(readable_features(session.backbone, sides, len(picked), load, lost, session.checkpoint))
    if not found:
        return np.zeros_like(applied)
    indices = np.concatenate([part for part, _ in found])
    features = np.concatenate([base[None, indices], np.concatenate([part for _, part in found], axis=1)])
    with np.errstate(invalid="ignore", over="ignore"):
        losses = state.head.losses(features, labels[indices], class_ids)
    state.progress.forward_passes += 2 * len(indices)
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    # Not a product: zero times a negative number would journal a sign.
    return (np.zeros_like(applied), applied, -applied)[best]
