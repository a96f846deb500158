"""Train on many hosts with torch's DistributedDataParallel. Each rank reads its part of every global batch.

    torchrun --nproc-per-node 2 examples/torch_ddp.py eurosat.h5

torchrun sets the rank, the number of ranks and the address as environment variables. All ranks get the same number of
rows of each batch, so the mean of their gradients is the gradient of the global batch. For this reason the last batch
of an epoch may lack up to COUNT - 1 rows.
"""

import argparse
import json

import torch
import torch.distributed as dist
import torch.distributed.nn  # if the model imported it after init_process_group, the process group would never be freed
from torch import nn

from h5split import SplitSequence

parser = argparse.ArgumentParser(description="Train a small network on many hosts with torch.")
parser.add_argument("pack", help="a file made by pack-images")
parser.add_argument("--batch-size", type=int, default=256, help="global batch size (%(default)s)")
parser.add_argument(
    "--history", metavar="FILE", help="append losses and this rank's images to FILE.RANK, one line per epoch"
)
arguments = parser.parse_args()

dist.init_process_group("gloo")  # on GPUs: "nccl", and move the network and batches to GPU LOCAL_RANK
rank, count = dist.get_rank(), dist.get_world_size()
data = SplitSequence(arguments.pack, batch_size=arguments.batch_size // count, label_mode="int", auto_shuffle=True)
_, train = data.split(0.2)  # the first fifth is for validation
train = train.shard(rank, count)
batches = train.as_torch_loader()

torch.manual_seed(0)
network = nn.Sequential(nn.Flatten(), nn.LazyLinear(32), nn.Tanh(), nn.Linear(32, train.num_classes))
network(torch.zeros(1, *train.shape))  # sets the input size of the lazy layer
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
    dist.all_reduce(losses)  # sum over ranks: the losses of the global batches
    print(f"rank {rank} of {count}: epoch {epoch}, loss {losses.mean():.4f}", flush=True)
    if arguments.history:
        images = train.get_filenames(range(len(train.delivered)))
        with open(f"{arguments.history}.{rank}", "a") as file:
            print(json.dumps({"losses": losses.tolist(), "images": images}), file=file)

weights = sum(weight.double().square().sum().item() for weight in model.parameters())
print(f"rank {rank} of {count}: weights {weights:.9f}")  # the same on every rank
del model  # the last reference to the process group, whose threads must end before Python exits
dist.destroy_process_group()
