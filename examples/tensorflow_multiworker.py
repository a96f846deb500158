"""Train on many hosts with TensorFlow's MultiWorkerMirroredStrategy. Each worker reads its part of every global batch.

    export TF_CONFIG='{"cluster": {"worker": ["one:2222", "two:2222"]}, "task": {"type": "worker", "index": 0}}'
    python examples/tensorflow_multiworker.py eurosat.h5    # on host one; on host two use index 1

The training loop is written out, because `fit` of Keras 3 fails with this strategy. Every batch is full, so it divides
evenly over the devices. The rows left over at the end of an epoch are not trained on. They are different ones in every
epoch.
"""

import argparse
import json

import keras
import tensorflow as tf

from h5split import SplitSequence

parser = argparse.ArgumentParser(description="Train a small network on many hosts with TensorFlow.")
parser.add_argument("pack", help="a file made by pack-images")
parser.add_argument("--batch-size", type=int, default=256, help="global batch size (%(default)s)")
parser.add_argument(
    "--history", metavar="FILE", help="append losses and this worker's images to FILE.RANK, one line per epoch"
)
arguments = parser.parse_args()

strategy = tf.distribute.MultiWorkerMirroredStrategy()  # reads TF_CONFIG and waits for the other workers
data = SplitSequence(arguments.pack, label_mode="int", auto_shuffle=True, drop_remainder=True)
_, whole = data.split(0.2)  # the first fifth is for validation


def worker_batches(context):
    """Return the batches of this worker, cut into batches for its devices."""
    global rank, count, train
    rank, count = context.input_pipeline_id, context.num_input_pipelines
    train = whole.set(batch_size=arguments.batch_size // count).shard(rank, count)
    return train.as_tf_dataset().rebatch(context.get_per_replica_batch_size(arguments.batch_size))


# experimental_distribute_dataset() would shard the data set a second time.
batches = strategy.distribute_datasets_from_function(worker_batches)

keras.utils.set_random_seed(0)
with strategy.scope():
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(32, "tanh")]
    model = keras.Sequential([keras.Input(train.shape), *layers, keras.layers.Dense(train.num_classes)])
    optimizer = keras.optimizers.SGD(0.05)


def replica_step(images, labels):
    with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(images, training=True))
        loss = tf.nn.compute_average_loss(losses)  # over the global batch
    optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return loss


@tf.function
def step(images, labels):
    return strategy.reduce("SUM", strategy.run(replica_step, (images, labels)), axis=None)


for epoch in range(2):
    losses = [float(loss) for loss in [step(images, labels) for images, labels in batches]]
    print(f"rank {rank} of {count}: epoch {epoch}, loss {sum(losses) / len(losses):.4f}", flush=True)
    if arguments.history:
        images = train.get_filenames(range(len(train.delivered)))
        with open(f"{arguments.history}.{rank}", "a") as file:
            print(json.dumps({"losses": losses, "images": images}), file=file)

weights = sum(float((weight.numpy().astype("float64") ** 2).sum()) for weight in model.trainable_variables)
print(f"rank {rank} of {count}: weights {weights:.9f}")  # the same on every rank
