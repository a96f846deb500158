"""Import this before torchvision.

torchvision comes built for graphics processors; beside a torch without them its compiled part does not load, and two
operators that nothing here uses have to be declared for the rest to be imported.
"""

from __future__ import annotations

import torch

if torch.version.cuda is None:
    DECLARED = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        DECLARED.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
