"""What people type by mistake: each gets one line that says what was expected, what was found, and what to type."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from conftest import PATIENCE, write_classes
from h5split import PackedImages, SplitSequence
from h5split.cli import main as h5split
from h5split.system.places import archive_advice, url_advice
from pack_images import PackError, pack
from pack_images.cli import main as pack_images


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_of(capsys, main, *line):
    """The one line that a command prints about an error, without the name of the command."""
    capsys.readouterr()
    assert main([*line]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    return printed.rstrip("\n").partition(": ")[2]


# --- nothing


def test_pack_images_alone_shows_three_examples(capsys):
    with pytest.raises(SystemExit, match="2"):
        pack_images([])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("usage: pack-images SOURCE... -o OUT.h5 [options]\n\nexamples:\n")
    assert printed.err.count("\n  pack-images ") == 3
    assert printed.err.endswith("\npack-images --help lists every option\n")


def test_h5split_alone_shows_examples(capsys):
    with pytest.raises(SystemExit, match="2"):
        h5split([])
    assert "\n  h5split info eurosat.h5\n" in capsys.readouterr().err


def test_help_still_ends_with_the_exit_status(capsys):
    for main in (pack_images, h5split):
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])
        *_, examples, status = capsys.readouterr().out.split("\n\n")
        assert examples.startswith("examples:")
        assert status.startswith("exit status: 0 ")


# --- a URL


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("https://x.org/a b.zip", "curl -LO 'https://x.org/a b.zip'"),
        ("s3://bucket/data", "aws s3 cp --recursive s3://bucket/data DIR"),
        ("gs://bucket/data", "gcloud storage cp -r gs://bucket/data DIR"),
        ("https:/x.org/data", "curl -LO https://x.org/data"),  # as pathlib writes it
    ],
)
def test_a_url_as_source_says_how_to_fetch_it(here, capsys, url, advice):
    found = error_of(capsys, pack_images, url, "-o", "out.h5")
    assert found == (
        f"{url}: expected a folder of images or a pack, found a URL; copy the files to this machine first, such as "
        f"with: {advice}"
    )


def test_a_url_as_pack_table_or_output(here, capsys):
    message = "found a URL that has lost a slash, as pathlib does it; give it as text: 's3://bucket/images.h5'"
    with pytest.raises(FileNotFoundError, match=f"s3:/bucket/images.h5: expected the path of a pack, {message}"):
        SplitSequence(Path("s3://bucket/images.h5"))
    message = "copy the files to this machine first"
    assert message in error_of(capsys, pack_images, "--manifest", "https://x.org/a.csv", "-o", "out.h5")
    write_classes(here / "data", {"cat": 2})
    found = error_of(capsys, pack_images, "data", "-o", "s3://bucket/out.h5")
    assert found == (
        "s3://bucket/out.h5: expected a file to write, found a URL; pack to a file here, with -o out.h5, and upload it "
        "when it is complete, such as with: aws s3 cp out.h5 s3://bucket/out.h5"
    )


def test_a_file_url_is_a_path(here):
    with pytest.raises(FileNotFoundError, match="found a URL; give the path itself, '/data/a b'"):
        SplitSequence("file:///data/a b")
    assert url_advice("file:///data/a b") == "found a URL; give the path itself, '/data/a b'"


@pytest.mark.parametrize("path", ["data", "/data", "C:/data", "C:\\data", "a:b", "./https", "https", ""])
def test_a_path_is_no_url(path):
    assert url_advice(path) is None


# --- an archive


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("data.zip", "unzip data.zip -d data"),
        ("my data.ZIP", "unzip 'my data.ZIP' -d 'my data'"),
        ("data.tar", "mkdir data && tar -xf data.tar -C data"),
        ("data.tar.gz", "mkdir data && tar -xf data.tar.gz -C data"),
        ("v1.0.tgz", "mkdir v1.0 && tar -xf v1.0.tgz -C v1.0"),
        ("data.7z", "7z x data.7z -odata"),
        ("data.rar", "unrar x data.rar data/"),
    ],
)
def test_an_archive_as_source_says_how_to_unpack_it(here, capsys, name, command):
    (here / name).write_bytes(b"")
    found = error_of(capsys, pack_images, name, "-o", "out.h5")
    assert found == (
        f"{name}: expected a folder of images or a pack, found an archive; unpack it first, and give its folder: "
        f"{command}"
    )


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_the_command_that_is_named_works(here, kind):
    write_classes(here / "images", {"cat": 2, "dog": 1})
    files = sorted((here / "images").rglob("*.png"))
    if kind == "zip":
        with zipfile.ZipFile("data.zip", "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(here / "images"))
    else:
        with tarfile.open("data.tar.gz", "w:gz") as archive:
            for file in files:
                archive.add(file, file.relative_to(here / "images"))
    command = archive_advice(f"data.{kind}").rpartition(": ")[2]
    if subprocess.run(["which", command.split()[0]], capture_output=True).returncode:
        pytest.skip(f"needs {command.split()[0]}")
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert pack(["data"], "out.h5", workers=1).classes == {"cat": 2, "dog": 1}


# --- a file of arrays


@pytest.mark.parametrize("version", ["earliest", "v108", "latest"])
def test_another_hdf5_file_says_how_its_arrays_become_a_pack(here, capsys, version):
    images, labels = np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 0, 1]
    with h5py.File("other.h5", "w", libver=version) as file:
        file["x"], file["y"] = images, labels
    command = "pack_images.write('OUT.h5', images, labels) makes a pack of its arrays"
    for main, line in ((h5split, ["info", "other.h5"]), (pack_images, ["other.h5", "-o", "out.h5"])):
        found = error_of(capsys, main, *line)
        assert found.startswith("other.h5: expected a pack")
        assert "another HDF5 file" in found
        assert found.endswith(command)
    from pack_images import write

    with h5py.File("other.h5") as file:  # what the line says, done
        write("OUT.h5", file["x"][:], file["y"][:])
    assert len(PackedImages("OUT.h5")) == 4


def test_arrays_as_source_say_which_function_packs_them(here):
    np.savez("a.npz", x_train=np.zeros((2, 4, 4), np.uint8), y_train=[0, 1])
    with pytest.raises(PackError, match=r"found arrays; in Python, pack_images\.write\('OUT\.h5', 'a\.npz'\) packs"):
        pack(["a.npz"], "out.h5", workers=1)
    from pack_images import write

    assert write("OUT.h5", "a.npz").rows == 2


def test_a_text_as_pack_does_not_speak_of_arrays(here, capsys):
    (here / "a.h5").write_text("text")
    assert error_of(capsys, h5split, "info", "a.h5").endswith("not an HDF5 file; packs are made by pack-images")


# --- workers


@pytest.mark.parametrize("name", ["num_workers", "workers", "prefetch_factor"])
def test_workers_are_no_setting(packed, name):
    message = rf"^{name}: expected none, found 4; batches are views .*: leave {name} out$"
    with pytest.raises(ValueError, match=message):
        SplitSequence(packed, **{name: 4})
    with pytest.raises(ValueError, match=message):
        SplitSequence(packed).set(**{name: 4})


def test_a_loader_of_torch_takes_no_workers(packed):
    pytest.importorskip("torch", reason="needs torch: pip install torch")
    with pytest.raises(ValueError, match="as_torch_loader: num_workers: expected none, found 4"):
        SplitSequence(packed).as_torch_loader(num_workers=4)
    assert len(SplitSequence(packed).as_torch_loader(num_workers=0)) == 4


@pytest.mark.parametrize(("argument", "advice"), [("shuffle", "set.auto_shuffle=True"), ("collate_fn", "map.function")])
def test_an_argument_of_a_data_loader_is_an_error_that_says_what_to_use(packed, argument, advice):
    with pytest.raises(TypeError, match=f"as_torch_loader: expected no argument {argument}, as .* use {advice}"):
        SplitSequence(packed).as_torch_loader(**{argument: True})


def test_images_that_have_channels_first_are_not_turned_again(packed):
    pytest.importorskip("torch", reason="needs torch: pip install torch")
    sequence = SplitSequence(packed, batch_size=10).map(
        lambda images, labels, rng: (images.transpose(0, 3, 1, 2), labels)
    )
    with pytest.raises(
        ValueError, match=r"expected images \(B, H, W, C\), which it turns itself, found \(10, 3, 8, 8\)"
    ):
        next(iter(sequence.as_torch_loader()))
    assert next(iter(sequence.as_torch_loader(channels_first=False)))[0].shape == (10, 3, 8, 8)


def test_a_loader_made_again_with_workers_is_refused(packed):
    data = pytest.importorskip("torch.utils.data", reason="needs torch: pip install torch")
    loader = data.DataLoader(SplitSequence(packed).as_torch_loader().dataset, batch_size=None, num_workers=2)
    with pytest.raises(ValueError, match="num_workers: expected none, found 2"):
        list(loader)


# --- ranks without shards

RANK = """
import sys, warnings
import torch.distributed as dist
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from h5split import SplitSequence

path, place, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
data = SplitSequence(path, batch_size=10, label_mode="int")

def warnings_of(*passes):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for make in passes:
            list(make())
    return [str(one.message) for one in caught if one.category is UserWarning]

shard = data.shard(rank, 2)
sampler = DistributedSampler(data, 2, rank)
print("shard", len(warnings_of(lambda: shard, lambda: shard.as_torch_loader(), lambda: shard.set(auto_shuffle=True))))
print("sampler", len(warnings_of(lambda: DataLoader(data, batch_size=None, sampler=sampler))))
print("in order", len(warnings_of(lambda: data, lambda: data, lambda: data.as_torch_loader())))
shuffled = data.split(0.5)[0].set(auto_shuffle=True)
found = warnings_of(lambda: shuffled, lambda: shuffled, lambda: DataLoader(shuffled, batch_size=None))
print("shuffled", len(found))
print(found[0])
other = data.split(0.5)[1].set(auto_shuffle=True)
print("loader", len(warnings_of(lambda: other.as_torch_loader(), lambda: other.as_torch_loader())))
dist.barrier()
dist.destroy_process_group()
"""


def test_ranks_that_read_the_same_rows_are_warned_once(packed, tmp_path):
    pytest.importorskip("torch", reason="needs torch: pip install torch")
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    command = [sys.executable, str(script), str(packed), str(tmp_path / "place")]
    ranks = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for rank, process in enumerate(ranks):
        out, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        assert out.splitlines() == [
            "shard 0",
            "sampler 0",
            f"in order {rank}",  # rank 0 may evaluate alone
            "shuffled 1",
            f"expected the part of this rank, found a sequence of all rows on rank {rank} of 2 of torch.distributed: "
            "every rank sees the same images; use sequence.shard(rank, world_size)",
            "loader 1",
        ]


def test_without_torch_distributed_nothing_is_said(packed, recwarn):
    for _ in SplitSequence(packed, auto_shuffle=True):
        pass
    assert not recwarn.list
