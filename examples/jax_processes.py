"""Train on many hosts with JAX. Batches are global arrays, and each process holds the rows that it read.

    python examples/jax_processes.py eurosat.h5 --coordinator one:2222 --count 2 --rank 0    # on host one
    python examples/jax_processes.py eurosat.h5 --coordinator one:2222 --count 2 --rank 1    # on host two

On TPUs, under Slurm and in Kubernetes JAX finds these three options itself. Every batch is full, so it divides evenly
over the devices, and the step is compiled only once. The rows left over at the end of an epoch are not trained on.
They are different ones in every epoch.
"""

import argparse
import json

import jax
import numpy as np
from jax import numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from h5split import SplitSequence

parser = argparse.ArgumentParser(description="Train a small network on many hosts with JAX.")
parser.add_argument("pack", help="a file made by pack-images")
parser.add_argument("--coordinator", metavar="HOST:PORT", help="address of the process with rank 0")
parser.add_argument("--count", type=int, help="number of processes")
parser.add_argument("--rank", type=int, help="rank of this process, from 0")
parser.add_argument("--batch-size", type=int, default=256, help="global batch size (%(default)s)")
parser.add_argument(
    "--history", metavar="FILE", help="append losses and this process' images to FILE.RANK, one line per epoch"
)
arguments = parser.parse_args()

jax.config.update("jax_cpu_collectives_implementation", "gloo")  # has no effect on GPUs and TPUs
jax.distributed.initialize(arguments.coordinator, arguments.count, arguments.rank)
rank, count = jax.process_index(), jax.process_count()
data = SplitSequence(arguments.pack, label_mode="int", auto_shuffle=True, drop_remainder=True)
_, train = data.set(batch_size=arguments.batch_size // count).split(0.2)  # the first fifth is for validation
train = train.shard(rank, count)

mesh = Mesh(jax.devices(), ("rows",))
by_rows, replicated = NamedSharding(mesh, PartitionSpec("rows")), NamedSharding(mesh, PartitionSpec())
initial = jax.nn.initializers.glorot_uniform()
keys, pixels = jax.random.split(jax.random.key(0)), int(np.prod(train.shape))
weights = initial(keys[0], (pixels, 32)), initial(keys[1], (32, train.num_classes))
weights = jax.device_put(weights, replicated)


def loss_of(weights, images, labels):
    hidden = jnp.tanh(images.reshape(len(images), -1) / 255 @ weights[0])
    log_probabilities = jax.nn.log_softmax(hidden @ weights[1])
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()  # over the global batch


@jax.jit
def step(weights, images, labels):
    loss, gradients = jax.value_and_grad(loss_of)(weights, images, labels)
    return jax.tree.map(lambda weight, gradient: weight - 0.05 * gradient, weights, gradients), loss


for epoch in range(2):
    losses = []
    for batch in train:
        images, labels = (jax.make_array_from_process_local_data(by_rows, rows) for rows in batch)
        weights, loss = step(weights, images, labels)
        losses.append(loss)
    losses = [float(loss) for loss in losses]
    print(f"rank {rank} of {count}: epoch {epoch}, loss {sum(losses) / len(losses):.4f}", flush=True)
    if arguments.history:
        images = train.get_filenames(range(len(train.delivered)))
        with open(f"{arguments.history}.{rank}", "a") as file:
            print(json.dumps({"losses": losses, "images": images}), file=file)

total = sum(float(np.square(weight, dtype=np.float64).sum()) for weight in weights)
print(f"rank {rank} of {count}: weights {total:.9f}")  # the same on every rank
