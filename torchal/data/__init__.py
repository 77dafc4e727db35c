"""Data sets, one function per source, each returning `Splits`; and the start set of a simulation.

What a sampler or a model does with the rows does not belong here.
"""

from torchal.data.arrays import idx as idx
from torchal.data.arrays import npy as npy
from torchal.data.arrays import npz as npz
from torchal.data.cifar import cifar10 as cifar10
from torchal.data.cifar import cifar100 as cifar100
from torchal.data.cifar import svhn as svhn
from torchal.data.corpora import newsgroup as newsgroup
from torchal.data.corpora import rcv1 as rcv1
from torchal.data.corpora import wikipedia_attack as wikipedia_attack
from torchal.data.cut import SplitSettings as SplitSettings
from torchal.data.libsvm import libsvm as libsvm
from torchal.data.noise import with_label_noise as with_label_noise
from torchal.data.repeat import with_repeats as with_repeats
from torchal.data.shards import shards as shards
from torchal.data.sources import breast_cancer as breast_cancer
from torchal.data.sources import checkerboard as checkerboard
from torchal.data.sources import digits as digits
from torchal.data.sources import iris as iris
from torchal.data.sources import waveform as waveform
from torchal.data.sources import wine as wine
from torchal.data.splits import Splits as Splits
from torchal.data.splits import make_splits as make_splits
from torchal.data.start import start_rows as start_rows
from torchal.data.tables import TableSettings as TableSettings
from torchal.data.tables import csv as csv
from torchal.data.tables import dataframe as dataframe
from torchal.data.tables import parquet as parquet
from torchal.data.texts import reuters_r8 as reuters_r8
from torchal.data.texts import sms_spam as sms_spam
from torchal.data.texts import split_documents as split_documents
from torchal.data.texts import texts as texts
from torchal.data.vision import fashion_mnist as fashion_mnist
from torchal.data.vision import mnist as mnist
from torchal.data.vision_files import ImageFiles as ImageFiles
from torchal.data.vision_files import image_files as image_files
from torchal.data.vision_files import image_folder as image_folder
from torchal.pool.dataset_inputs import DatasetInputs as DatasetInputs
from torchal.pool.file_inputs import FileInputs as FileInputs
from torchal.pool.inputs import SparseInputs as SparseInputs
from torchal.pool.tables import TableInputs as TableInputs
