"""What counts as out of memory: messages as people reported them, each with the thread it stands in."""

import errno

import pytest
import torch

from carryover.bench.errors import UserError
from carryover.bench.host.out_of_memory import ran_out

ASYNC = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
)
MEMORY = {
    "JDAI-CV/fast-reid#625": "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "pytorch/pytorch#20123": "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "NVIDIA-Genomics-Research/rapids-single-cell-examples#11": "CuSparseError: CUSPARSE_STATUS_ALLOC_FAILED",
    "status of cuSOLVER": "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "status of cuDNN 9": "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "rusty1s/pytorch_sparse#280": "CUDA error: out of memory" + ASYNC,
    "Comfy-Org/ComfyUI#12366": "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in "
    "https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html for more information." + ASYNC,
    "ROCm/TheRock#1054": "HIP out of memory. Tried to allocate 16.00 GiB. GPU 0 has a total capacity of 15.24 GiB",
    "keras-team/keras#13889": "failed to allocate 127.99TiB (140729850295296 bytes) from device: HIP_ERROR_OutOfMemory",
    "Comfy-Org/ComfyUI#7440": "MPS backend out of memory (MPS allocated: 9.57 GiB, other allocations: 17.35 GiB, max "
    "allowed: 27.20 GiB). Tried to allocate 292.50 MiB on private pool.",
    "pytorch/pytorch#141909": "Invalid buffer size: 19.45 GB",
    "mxfold/mxfold2#20": "[enforce fail at alloc_cpu.cpp:75] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 132426121216 bytes. Error code 12 (Cannot allocate memory)",
    "lllyasviel/Fooocus#237": "[enforce fail at ..\\c10\\core\\impl\\alloc_cpu.cpp:72] data. DefaultCPUAllocator: "
    "not enough memory: you tried to allocate 26214400 bytes.",
    "ROCm/MIOpen#494": "std::bad_alloc",
    "pytorch/pytorch#87861": "unable to mmap 29764 bytes from file </torch_10182_3020184674_63991>: Cannot allocate "
    "memory (12)",
    "uxlfoundation/oneDNN#4964": "Function 'create_primitive' returned 'out_of_memory'",
    "AUTOMATIC1111/stable-diffusion-webui#16571": "OneDNN errcode -6,CL_OUT_OF_HOST_MEMORY",
    # a handle that cannot be made: memory by those who answered in these threads
    "EleutherAI/lm-evaluation-harness#1689": "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling "
    "`cublasCreate(handle)`",
    "haotian-liu/LLaVA#392": "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "Skype-line/X-Avatar#10": "cusolver error: 7, when calling `cusolverDnCreate(handle)`",
}
NONE = {
    "WangYueFt/dcp#30": "CUDA error: device-side assert triggered" + ASYNC,
    "rusty1s/pytorch_sparse#314": "CUDA error: an illegal memory access was encountered" + ASYNC,
    "rusty1s/pytorch_sparse#23": "CUDA error: unspecified launch failure",
    "cupy/cupy#10033, where the dense result fits": "CUSPARSE_STATUS_INSUFFICIENT_RESOURCES",
    "JingwenWang95/KinectFusion#4": "cusolver error: CUSOLVER_STATUS_EXECUTION_FAILED, when calling "
    "`cusolverDnSgetrf( handle, m, n, dA, ldda, static_cast<float*>(dataPtr.get()), ipiv, info)`",
    "jiaweizzhao/GaLore#7": "cusolver error: CUSOLVER_STATUS_INVALID_VALUE, when calling "
    "`cusolverDnSgesvdj_bufferSize(handle, jobz, econ, m, n, A, lda, S, U, ldu, V, ldv, lwork, params)`",
    "yassouali/pytorch-segmentation#77": "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
    "uxlfoundation/oneDNN#1500": "could not create a primitive",
    "pytorch/pytorch#77886": "Placeholder buffer size (14336) is not large enough to contain the Tensor storage of "
    "size 114688",
    "shared memory that is full": "unable to write to file </torch_1_2_3>: No space left on device (28)",
    "shapes": "mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)",
    "devices": "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
}


@pytest.mark.parametrize("said", MEMORY.values(), ids=MEMORY)
def test_what_people_saw_when_memory_was_lacking_is_out_of_memory(said):
    assert ran_out(RuntimeError(said))


@pytest.mark.parametrize("said", NONE.values(), ids=NONE)
def test_what_other_faults_say_is_not(said):
    assert not ran_out(RuntimeError(said))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 201. GiB for an array with shape (2999, 2999, 2999) and data type int64"),
        torch.OutOfMemoryError("any words"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=["python", "numpy/numpy#17595", "torch", "facebook/Ax#98"],
)
def test_errors_whose_kind_says_it_need_no_words(error):
    assert ran_out(error)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), UserError("out of memory"), None])
def test_a_full_disk_and_a_mistake_of_the_users_are_none(error):
    assert not ran_out(error)


def test_an_error_that_was_raised_from_one_is_one_too():
    """As a picture that could not be decoded for lack of memory."""
    try:
        try:
            bytearray(1 << 62)
        except MemoryError as error:
            raise UserError("image 'a.jpg' cannot be read (MemoryError); replace the file") from error
    except UserError as error:
        assert ran_out(error)


def test_what_torch_says_here_of_a_tensor_that_no_machine_holds_is_one():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert ran_out(caught.value)
