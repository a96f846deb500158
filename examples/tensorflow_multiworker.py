"""Train on many hosts with TensorFlow: MultiWorkerMirroredStrategy, each worker on its part of every global batch.

    export TF_CONFIG='{"cluster": {"worker": ["one:2222", "two:2222"]}, "task": {"type": "worker", "index": 0}}'
    python examples/tensorflow_multiworker.py eurosat.h5    # on host one; and on host two with index 1

The loop is written out, because `fit` of Keras 3 fails with this strategy. Every batch is full: it is cut evenly over
any number of devices. The rows that fill none are others in every epoch.
"""

import argparse
import json

import keras
import tensorflow as tf

from h5split import SplitSequence

parser = argparse.ArgumentParser(description="Train a small network on many hosts with TensorFlow.")
parser.add_argument("pack", help="a file made by pack-images")
parser.add_argument("--batch-size", type=int, default=256, help="of all workers together (%(default)s)")
parser.add_argument(
    "--history", metavar="FILE", help="add losses and this worker's images to FILE.RANK, a line an epoch"
)
arguments = parser.parse_args()

strategy = tf.distribute.MultiWorkerMirroredStrategy()  # reads TF_CONFIG, and waits for the others
data = SplitSequence(arguments.pack, label_mode="int", auto_shuffle=True, drop_remainder=True)
_, whole = data.split(0.2)  # the first fifth is for validation


def batches_of(context):
    """The batches of this worker, cut into those of its devices."""
    global rank, count, train
    rank, count = context.input_pipeline_id, context.num_input_pipelines
    train = whole.set(batch_size=arguments.batch_size // count).shard(rank, count)
    return train.as_tf_dataset().rebatch(context.get_per_replica_batch_size(arguments.batch_size))


batches = strategy.distribute_datasets_from_function(batches_of)  # a data set given as it is would be sharded once more

keras.utils.set_random_seed(0)
with strategy.scope():
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(32, "tanh")]
    model = keras.Sequential([keras.Input(train.shape), *layers, keras.layers.Dense(train.num_classes)])
    optimizer = keras.optimizers.SGD(0.05)


def step_of_replica(images, labels):
    with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(images, training=True))
        loss = tf.nn.compute_average_loss(losses)  # over the global batch
    optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return loss


@tf.function
def step(images, labels):
    return strategy.reduce("SUM", strategy.run(step_of_replica, (images, labels)), axis=None)


for epoch in range(2):
    losses = [float(loss) for loss in [step(images, labels) for images, labels in batches]]
    print(f"rank {rank} of {count}: epoch {epoch}, loss {sum(losses) / len(losses):.4f}", flush=True)
    if arguments.history:
        images = train.get_filenames(range(len(train.delivered)))
        with open(f"{arguments.history}.{rank}", "a") as file:
            print(json.dumps({"losses": losses, "images": images}), file=file)

weights = sum(float((weight.numpy().astype("float64") ** 2).sum()) for weight in model.trainable_variables)
print(f"rank {rank} of {count}: weights {weights:.9f}")  # the same on every rank
