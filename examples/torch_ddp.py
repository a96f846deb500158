"""Train on many hosts with torch: DistributedDataParallel, each rank on its part of every global batch.

    torchrun --nproc-per-node 2 examples/torch_ddp.py eurosat.h5

torchrun tells rank, count and address in the environment. All ranks have equally many rows of a batch, so that
the mean of their gradients is the gradient of the global batch; for it the last one may lack up to COUNT - 1 rows.
"""

import argparse
import json

import torch
import torch.distributed as dist
import torch.distributed.nn  # loaded by the model, after init_process_group, it would keep the process group for good
from torch import nn

from h5split import SplitSequence

parser = argparse.ArgumentParser(description="Train a small network on many hosts with torch.")
parser.add_argument("pack", help="a file made by pack-images")
parser.add_argument("--batch-size", type=int, default=256, help="of all ranks together (%(default)s)")
parser.add_argument("--history", metavar="FILE", help="add losses and this rank's images to FILE.RANK, a line an epoch")
arguments = parser.parse_args()

dist.init_process_group("gloo")  # on GPUs "nccl"; network and batches then go to the GPU of number LOCAL_RANK
rank, count = dist.get_rank(), dist.get_world_size()
data = SplitSequence(arguments.pack, batch_size=arguments.batch_size // count, label_mode="int", auto_shuffle=True)
_, train = data.split(0.2)  # the first fifth is for validation
train = train.shard(rank, count)
batches = train.as_torch_loader()

torch.manual_seed(0)
network = nn.Sequential(nn.Flatten(), nn.LazyLinear(32), nn.Tanh(), nn.Linear(32, train.num_classes))
network(torch.zeros(1, *train.shape))  # tells the first layer how large images are
model = nn.parallel.DistributedDataParallel(network)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

for epoch in range(2):
    losses = []
    for images, labels in batches:
        loss = nn.functional.cross_entropy(model(images.float() / 255), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach() / count)
    losses = torch.stack(losses)
    dist.all_reduce(losses)  # the sum over ranks: now they are those of the global batches
    print(f"rank {rank} of {count}: epoch {epoch}, loss {losses.mean():.4f}", flush=True)
    if arguments.history:
        images = train.get_filenames(range(len(train.delivered)))
        with open(f"{arguments.history}.{rank}", "a") as file:
            print(json.dumps({"losses": losses.tolist(), "images": images}), file=file)

weights = sum(weight.double().square().sum().item() for weight in model.parameters())
print(f"rank {rank} of {count}: weights {weights:.9f}")  # the same on every rank
del model  # the last to hold the process group, whose threads must end before Python does
dist.destroy_process_group()
