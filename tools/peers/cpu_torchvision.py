"""Import this before torchvision.

torchvision is built for GPUs. Its compiled part does not load with a CPU build of torch. Its Python part can still be
imported if two operators are declared, which the benchmarks do not use.
"""

from __future__ import annotations

import torch

if torch.version.cuda is None:
    DECLARED = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        DECLARED.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
