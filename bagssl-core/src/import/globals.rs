//! The globals that a pickle may refer to.

use std::prelude::v1::*;

use super::dtype::DType;

/// The meaning of a pickle's global.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global<'a> {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(DType),
    Size,
    /// A class or function for settings. It is never called: a call in the pickle yields an inert
    /// value.
    Inert,
    /// A function or class of the training script. A pickle may refer to it but not call it.
    Script(&'a str),
}

impl<'a> Global<'a> {
    pub(super) fn find(module: &str, name: &'a str) -> Option<Self> {
        let is_inert = || INERT.iter().any(|(known, names)| *known == module && names.contains(&name));
        Some(match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", "Size") => Global::Size,
            ("torch", name) if name.ends_with("Storage") => Global::Storage(DType::of_storage(name)?),
            ("__main__", name) => Global::Script(name),
            _ => is_inert().then_some(Global::Inert)?,
        })
    }

    /// Whether the global is a class of a network module: its module belongs to a deep-learning
    /// library or has a typical name.
    pub(super) fn is_of_a_model(module: &str, name: &str) -> bool {
        let is_class = name.starts_with(|letter: char| letter.is_ascii_uppercase());
        let libraries = ["torch.nn", "torchvision.models", "timm", "lightly", "solo", "transformers"];
        let is_part = |part: &str| ["model", "models", "modules", "networks", "nn", "backbones"].contains(&part);
        let of_library = libraries.iter().any(|library| module.starts_with(library));
        is_class && (of_library || module.split('.').any(is_part))
    }
}

const BUILTINS: &[&str] = &[
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "range",
    "set",
    "slice",
    "str",
    "tuple",
];

/// The objects that training programs store beside the tensors, by module: hyperparameters of
/// Lightning and solo-learn, scheduler states, paths, dates, NumPy arrays and numbers.
/// `__builtin__` and its names come from Python 2, as protocol 2 writes them.
const INERT: &[(&str, &[&str])] = &[
    ("builtins", BUILTINS),
    ("__builtin__", BUILTINS),
    ("__builtin__", &["long", "unicode", "xrange"]),
    ("_codecs", &["encode"]),
    ("argparse", &["Namespace"]),
    ("collections", &["Counter", "defaultdict", "deque"]),
    ("datetime", &["date", "datetime", "time", "timedelta", "timezone"]),
    ("functools", &["partial"]),
    ("pathlib", &["Path", "PosixPath", "PurePosixPath", "WindowsPath"]),
    ("pathlib._local", &["PosixPath", "WindowsPath"]),
    ("typing", &["Any"]),
    ("torch", &["bfloat16", "device", "float16", "float32", "float64", "int32", "int64"]),
    ("numpy", &["dtype", "ndarray"]),
    ("numpy.core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy._core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy.core.numeric", &["_frombuffer"]),
    ("numpy._core.numeric", &["_frombuffer"]),
    ("numpy.random._pickle", &["__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor"]),
    ("numpy.random._mt19937", &["MT19937"]),
    ("numpy.random._pcg64", &["PCG64"]),
    ("numpy.random.bit_generator", &["SeedSequence", "__pyx_unpickle_SeedSequence"]),
    ("omegaconf.base", &["ContainerMetadata", "Metadata"]),
    ("omegaconf.dictconfig", &["DictConfig"]),
    ("omegaconf.listconfig", &["ListConfig"]),
    ("omegaconf.nodes", &["AnyNode", "BooleanNode", "FloatNode", "IntegerNode", "StringNode"]),
    ("pytorch_lightning.utilities.parsing", &["AttributeDict"]),
    ("lightning_fabric.utilities.data", &["AttributeDict"]),
    ("lightning.fabric.utilities.data", &["AttributeDict"]),
    ("pytorch_lightning.callbacks.model_checkpoint", &["ModelCheckpoint"]),
    ("pytorch_lightning.callbacks.lr_monitor", &["LearningRateMonitor"]),
    ("pytorch_lightning.callbacks.early_stopping", &["EarlyStopping"]),
    ("pytorch_lightning.callbacks.progress", &["ProgressBar"]),
];
