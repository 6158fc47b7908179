# shellcheck shell=bash disable=SC2034
# What differs between clusters. Copy it, edit the copy, and read it before you submit:
#
#     cp slurm/site.example.sh slurm/site.sh
#     . slurm/site.sh
#
# It is read twice: by your shell, since sbatch itself takes the SBATCH_ variables, and by every job. slurm/site.sh is
# not in git. `presence slurm` reads it by itself.

# What is asked of SLURM. sbatch's own options go before these, and these before what stands in a template.
export SBATCH_ACCOUNT=my_account
export SBATCH_PARTITION=gpu
export SBATCH_GPUS_PER_NODE=8 # leave it out on a cluster without GPUs: two ranks per node compute on its CPUs
# export SBATCH_QOS=normal
# export SBATCH_CONSTRAINT=h100 # nodes of one kind: the slowest sets the pace

# The Python that has presence_ds, on a file system that every node sees; inside a container, the container's. This is
# the one that `presence slurm` runs in, or else the repository's.
PRESENCE_PYTHON="${PRESENCE_PYTHON:-$PRESENCE_HOME/.venv/bin/python}"
# module load cuda/12.8 gcc/13 # DeepSpeed compiles operators at the first start, with the CUDA of torch's version

# A container: pyxis (enroot, a plugin of srun's), apptainer, or none. Mount what recipes and run directories name.
CONTAINER=none
CONTAINER_IMAGE=/shared/images/presence.sqsh # apptainer: a .sif file
CONTAINER_MOUNTS="$PRESENCE_HOME,/shared"

# Least free space on the run directory's file system, in GiB: a job that cannot save anything does not start.
MIN_FREE_GIB=50

# How often a job may requeue itself.
MAX_REQUEUES=200

# NCCL finds its way on most machines. Where it does not:
# export NCCL_SOCKET_IFNAME=ib0       # the network to meet over, where the first one does not join the nodes
# export NCCL_IB_HCA=mlx5             # the InfiniBand adapters to use, where others are for storage
# export NCCL_NET=Socket              # no InfiniBand, to see whether it is at fault
# export NCCL_DEBUG=INFO              # says what it uses
# export GLOO_SOCKET_IFNAME=ib0       # the same as NCCL_SOCKET_IFNAME, for control messages and CPU ranks
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1 # a rank that has lost a peer ends

# Compute nodes have no network as a rule: models and tokenizers come from HF_HOME, filled on a login node.
export HF_HUB_OFFLINE=1
export HF_HOME="${HF_HOME:-$HOME/.cache/huggingface}"
export WANDB_MODE="${WANDB_MODE:-offline}" # `wandb sync RUN_DIR/wandb/offline-run-*` on a login node sends it
