//! Tests the import with files written by PyTorch (see `reference/make_foreign.py`), and imported
//! residual networks against torchvision.
#![cfg(all(feature = "import", feature = "cpu", feature = "std"))]

use bagssl_core::architecture::{Architecture, mlp};
use bagssl_core::checkpoint::{self, Checkpoint, ModelPlan};
use bagssl_core::cpu::{Executor, ExecutorOptions as Cpu, Pool};
use bagssl_core::embed::FeatureLayer;
use bagssl_core::import::{DType, Foreign, ImportOptions, Imported, Layout, import, to_torchvision};
use bagssl_core::patch::{PatchSide, PatchSpec};
use bagssl_core::plan::{NamedTensor, Parameter};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::support::{formula, numbers};

const ODD: &[u8] = include_bytes!("reference/foreign/odd.pth");
const LIGHTNING: &[u8] = include_bytes!("reference/foreign/lightning.ckpt");
const WRAPPED: &[u8] = include_bytes!("reference/foreign/wrapped.pth");
const OLD: &[u8] = include_bytes!("reference/foreign/old.pth");

fn reference() -> Value {
    serde_json::from_str(include_str!("reference/foreign.json")).unwrap()
}

fn options() -> ImportOptions {
    let patch = PatchSpec::new(PatchSide::AreaShare(0.2), 32).unwrap();
    ImportOptions {
        layout: None,
        architecture: None,
        patch,
        normalization: None,
        allow_unused: false,
        source: "a file".into(),
    }
}

fn file(tensors: &[NamedTensor]) -> Vec<u8> {
    let raw: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&raw);
    let views = views.map(|((name, shape, _), raw)| (name, TensorView::new(Dtype::F32, shape.clone(), raw).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn refused(bytes: &[u8], options: &ImportOptions, words: &[&str]) {
    let error = Foreign::from_bytes(bytes).and_then(|foreign| import(&foreign, options)).unwrap_err().to_string();
    assert!(words.iter().all(|word| error.contains(word)) && !error.contains('\n'), "{error}");
}

/// The first bytes suffice for a file of any length.
#[test]
fn check_start_recognizes_files() {
    let start = |bytes: &[u8]| Foreign::check_start(bytes).map_err(|error| error.to_string());
    for foreign in [ODD, LIGHTNING, WRAPPED] {
        assert_eq!(start(&foreign[..16]), Ok(()));
    }
    assert_eq!(start(&[&100_u64.to_le_bytes()[..], b"{"].concat()), Ok(()));
    for (bytes, words) in [
        (&OLD[..16], "the format used before PyTorch 1.6"),
        (&[0; 16][..], "a header of at most 8388608 bytes, got a header of 0"),
        (&[0xff; 16], "a header of at most 8388608 bytes"),
        (b"short", "got neither: 5 bytes"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
    ] {
        assert!(start(bytes).unwrap_err().contains(words), "{:?}", start(bytes));
    }
}

#[test]
fn tensors_match_those_saved_by_pytorch() {
    let foreign = Foreign::from_bytes(ODD).unwrap();
    let expected = reference();
    let expected = expected["values"].as_object().unwrap();
    assert_eq!(foreign.names().count(), expected.len() + 1);
    for (name, value) in expected {
        let tensor = foreign.get(name).unwrap();
        let Some(shape) = value.get("shape") else {
            assert_eq!(tensor.values().unwrap(), [value.as_f64().unwrap() as f32]);
            continue;
        };
        let shape: Vec<usize> = shape.as_array().unwrap().iter().map(|side| side.as_u64().unwrap() as usize).collect();
        assert_eq!(tensor.shape(), shape, "{name}");
        assert_eq!(tensor.values().unwrap(), numbers(value), "{name}");
    }
    let counter = foreign.get("counter").unwrap();
    assert_eq!((counter.dtype(), counter.values()), (DType::Integer(8), None));
}

#[test]
fn state_dict_is_found_in_training_checkpoints() {
    for (bytes, name) in [(LIGHTNING, "backbone.running_var"), (WRAPPED, "module.running_var")] {
        let foreign = Foreign::from_bytes(bytes).unwrap();
        assert_eq!(foreign.names().count(), 5);
        assert_eq!(foreign.get(name).unwrap().values().unwrap(), [1.0, 1.0]);
    }
    refused(OLD, &options(), &["before PyTorch 1.6", "torch.save"]);
    refused(b"nothing", &options(), &["expected PyTorch's zip format or safetensors"]);
}

/// The weights of `reference/resnet.py`, phase "quadratic".
fn quadratic(index: usize, parameter: &Parameter) -> NamedTensor {
    (parameter.name.clone(), parameter.shape.clone(), formula(index, true, parameter))
}

/// A torchvision network with weights from the formula.
fn torchvision(architecture: Architecture) -> Vec<u8> {
    let names: Value = serde_json::from_str(include_str!("reference/resnet_names.json")).unwrap();
    let order = names[architecture.name().split_once('-').map_or(architecture.name(), |(name, _)| name)]
        .as_array()
        .unwrap()
        .iter();
    let order = order.map(|entry| entry["name"].as_str().unwrap());
    let order = order.filter(|name| !name.starts_with("fc.") && !name.ends_with("num_batches_tracked"));
    let order: Vec<&str> = order.collect();
    let place = |name: &str| order.iter().position(|known| *known == name).unwrap();
    let parameters = architecture.plan().parameters();
    file(&parameters.iter().map(|parameter| quadratic(place(&parameter.name), parameter)).collect::<Vec<_>>())
}

fn embed(imported: &Imported, dims: [usize; 4]) -> Vec<f32> {
    let input: Vec<f32> = (0..dims.iter().product()).map(|i| (0.01 * i as f64).sin() as f32).collect();
    embed_of(imported, &input, dims)
}

fn embed_of(imported: &Imported, input: &[f32], dims: [usize; 4]) -> Vec<f32> {
    let bytes = checkpoint::to_bytes(&imported.spec, &imported.tensors).unwrap();
    let checkpoint = Checkpoint::from_bytes(&bytes).unwrap();
    let mut source = |name: &str| checkpoint.tensor_ref(&format!("encoder.{name}")).map(Into::into);
    let (plan, size) = (checkpoint.spec().model.encoder(), [dims[2], dims[3]]);
    let executor = Executor::new(plan, &mut source, Cpu::new(dims[0], size)).unwrap();
    let mut workspace = executor.workspace(dims[0], size, Pool::global()).unwrap();
    executor.run(&mut workspace, input, Pool::global()).unwrap()
}

#[test]
fn imported_networks_match_torchvision() {
    for case in reference()["cases"].as_array().unwrap() {
        let architecture: Architecture = case["arch"].as_str().unwrap().parse().unwrap();
        let bytes = torchvision(architecture);
        let imported = import(&Foreign::from_bytes(&bytes).unwrap(), &options()).unwrap();
        assert_eq!((imported.layout, imported.architecture), (Layout::Torchvision, architecture));
        let dims: Vec<usize> =
            case["input_shape"].as_array().unwrap().iter().map(|length| length.as_u64().unwrap() as usize).collect();
        let output = embed(&imported, dims.try_into().unwrap());
        let expected = numbers(&case["embedding"]);
        let largest = expected.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
        for (value, expected) in output.iter().zip(&expected) {
            assert!((value - expected).abs() < 1e-4 * largest, "{architecture:?}: {value} {expected}");
        }
    }
}

/// The same file with renamed tensors.
fn renamed(tensors: &[NamedTensor], name: impl Fn(&str) -> String) -> Vec<u8> {
    let tensors = tensors.iter().map(|(old, shape, values)| (name(old), shape.clone(), values.clone()));
    file(&tensors.collect::<Vec<_>>())
}

fn imported(bytes: &[u8]) -> Imported {
    import(&Foreign::from_bytes(bytes).unwrap(), &options()).unwrap()
}

/// solo-learn's stem for CIFAR pads by 2. This equals a stem that pads by 1 on an image with a
/// border of zeros. The file does not contain the padding.
#[test]
fn solo_learn_small_stem_pads_by_2() {
    let bytes = torchvision(Architecture::ResNet18Cifar);
    let usual = Foreign::from_bytes(&bytes).unwrap();
    let tensors: Vec<NamedTensor> = usual
        .names()
        .map(|name| (name, usual.get(name).unwrap()))
        .map(|(name, tensor)| (name.into(), tensor.shape().to_vec(), tensor.values().unwrap()))
        .collect();
    let usual = import(&usual, &options()).unwrap();
    // The prefixes of newer and of older files.
    for prefix in ["backbone", "encoder"] {
        let bytes = renamed(&tensors, |name| format!("{prefix}.{name}"));
        let solo = imported(&bytes);
        assert_eq!((solo.layout, solo.architecture), (Layout::SoloLearn, Architecture::ResNet18CifarPad2));
        assert!(solo.notes[0].contains("assumed padding 2") && solo.notes[0].contains("resnet18-cifar has padding 1"));
        assert!(solo.notes[1].contains("cifar10 or cifar100"), "{:?}", solo.notes);
        let image: Vec<f32> = (0..3 * 6 * 8).map(|i| (0.1 * i as f32).sin()).collect();
        let mut bordered = vec![0.0; 3 * 8 * 10];
        for (row, values) in image.chunks(8).enumerate() {
            let (channel, y) = (row / 6, row % 6);
            bordered[(channel * 8 + y + 1) * 10 + 1..][..8].copy_from_slice(values);
        }
        let (padded, wanted) = (embed_of(&solo, &image, [1, 3, 6, 8]), embed_of(&usual, &bordered, [1, 3, 8, 10]));
        let largest = wanted.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
        assert!(padded.iter().zip(&wanted).all(|(value, wanted)| (value - wanted).abs() < 1e-4 * largest));
        assert!(
            embed_of(&usual, &image, [1, 3, 6, 8]).iter().zip(&wanted).any(|(a, b)| (a - b).abs() > 1e-2 * largest)
        );
        let explicit = ImportOptions { architecture: Some(Architecture::ResNet18Cifar), ..options() };
        let explicit = import(&Foreign::from_bytes(&bytes).unwrap(), &explicit).unwrap();
        assert_eq!(explicit.architecture, Architecture::ResNet18Cifar);
        assert!(!explicit.notes.iter().any(|note| note.contains("padding")));
    }
    let vicreg = imported(&renamed(&tensors, |name| format!("module.backbone.{name}")));
    assert_eq!((vicreg.layout, vicreg.architecture), (Layout::Vicreg, Architecture::ResNet18Cifar));
}

/// A small network whose projector is a `Sequential` with biases.
fn tensors(layout: Layout) -> Vec<NamedTensor> {
    let (wrap, encoder) = match layout {
        Layout::Torchvision => ("", ""),
        Layout::Vicreg | Layout::EmpSsl => ("module.", "backbone."),
        Layout::SoloLearn | Layout::Lightly => ("", "backbone."),
    };
    let model = ModelPlan::new(Architecture::ResNetSmall.plan(), mlp(64, &[8, 4]).unwrap()).unwrap();
    let weights = model.encoder().init_weights(3).into_iter();
    let mut all: Vec<_> =
        weights.map(|(name, shape, values)| (format!("{wrap}{encoder}{name}"), shape, values)).collect();
    let (first, second) = match layout {
        Layout::Torchvision => return all,
        Layout::Vicreg | Layout::SoloLearn => ("projector.", "projector.3."),
        Layout::Lightly => ("projection_head.layers.", "projection_head.layers.3."),
        Layout::EmpSsl => ("pre_feature.", "projection.0."),
    };
    let mut add = |name: String, shape: &[usize]| {
        let values = (0..shape.iter().product()).map(|i: usize| 0.25 + i as f32 / 64.0).collect();
        all.push((format!("{wrap}{name}"), shape.to_vec(), values));
    };
    add(format!("{first}0.weight"), &[8, 64]);
    add(format!("{first}0.bias"), &[8]);
    for part in ["weight", "bias", "running_mean", "running_var"] {
        add(format!("{first}1.{part}"), &[8]);
    }
    add(format!("{second}weight"), &[4, 8]);
    add(format!("{second}bias"), &[4]);
    all
}

#[test]
fn layout_is_detected_by_tensor_names() {
    for layout in Layout::ALL {
        let bytes = file(&tensors(layout));
        let imported = import(&Foreign::from_bytes(&bytes).unwrap(), &options()).unwrap();
        assert_eq!((imported.layout, imported.architecture), (layout, Architecture::ResNetSmall));
        let projector = imported.spec.model.projector();
        let names: Vec<String> = projector.parameters().into_iter().map(|parameter| parameter.name).collect();
        if layout == Layout::Torchvision {
            assert_eq!(names, ["0.weight"]);
            assert!(imported.notes[0].contains("identity"));
        } else {
            assert_eq!(names[..3], ["0.weight", "0.bias", "1.weight"], "{layout:?}");
            assert_eq!(names[6..], ["3.weight", "3.bias"], "{layout:?}");
            let text = format!("{:?}", projector.layers()[0]);
            assert!(text.contains("relu: true") && imported.notes.is_empty(), "{text}");
        }
        let layer = if layout == Layout::EmpSsl { FeatureLayer::FirstLayer } else { FeatureLayer::Embedding };
        assert_eq!(imported.spec.layer, layer, "{layout:?}");
        let stem = &imported.tensors[0];
        assert_eq!((stem.0.as_str(), &stem.2), ("encoder.conv1.weight", &tensors(layout)[0].2));
    }
}

#[test]
fn sequential_layers_are_counted() {
    let all = counted();
    assert!(all[0].0 == "backbone.0.weight" && all.iter().any(|(name, ..)| name == "backbone.4.0.conv1.weight"));
    let imported = import(&Foreign::from_bytes(&file(&all)).unwrap(), &options()).unwrap();
    assert_eq!((imported.layout, imported.architecture), (Layout::Lightly, Architecture::ResNetSmall));
}

/// A small network of lightly, as a `Sequential` of torchvision's layers.
fn counted() -> Vec<NamedTensor> {
    let number = |name: String| {
        let mut kinds = [("conv1", "0"), ("bn1", "1"), ("layer1", "4"), ("layer2", "5"), ("layer3", "6")].into_iter();
        let found = kinds.find_map(|(known, number)| {
            Some(format!("backbone.{number}.{}", name.strip_prefix(&format!("backbone.{known}."))?))
        });
        found.unwrap_or(name)
    };
    tensors(Layout::Lightly).into_iter().map(|(name, shape, values)| (number(name), shape, values)).collect()
}

/// `torch.compile` and parallel or averaged models add prefixes to names.
#[test]
fn wrapper_prefixes_are_removed() {
    for wrap in ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."] {
        let lightly = imported(&renamed(&counted(), |name| format!("{wrap}{name}")));
        assert_eq!((lightly.layout, lightly.architecture), (Layout::Lightly, Architecture::ResNetSmall), "{wrap}");
        assert!(lightly.notes.is_empty(), "{:?}", lightly.notes);
        for layout in [Layout::Torchvision, Layout::EmpSsl] {
            let bare = |name: &str| format!("{wrap}{}", name.trim_start_matches("module."));
            assert_eq!(imported(&renamed(&tensors(layout), bare)).layout, layout, "{wrap}");
        }
    }
    let compiled = |name: &str| name.replace("module.", "module._orig_mod.");
    assert_eq!(imported(&renamed(&tensors(Layout::Vicreg), compiled)).layout, Layout::Vicreg);
    let inner = |name: &str| name.replace("backbone.", "backbone._orig_mod.");
    assert_eq!(imported(&renamed(&tensors(Layout::SoloLearn), inner)).layout, Layout::SoloLearn);
    let mut averaged = tensors(Layout::Torchvision);
    averaged.push(("n_averaged".into(), vec![], vec![2.0]));
    let averaged = renamed(&averaged, |name| if name == "n_averaged" { name.into() } else { format!("module.{name}") });
    assert!(imported(&averaged).unused.is_empty());
}

#[test]
fn duplicate_tensors_are_refused() {
    let mut twice = tensors(Layout::SoloLearn);
    twice.push(("encoder.bn1.bias".into(), vec![16], vec![0.0; 16]));
    refused(&file(&twice), &options(), &["expected one tensor", "backbone.bn1.bias", "encoder.bn1.bias"]);
}

/// Linear, BN, ReLU, Dropout, Linear: the positions of ReLUs are ambiguous, so the projector
/// becomes the identity.
#[test]
fn projector_beyond_relu_becomes_identity() {
    let cases = [
        (Layout::SoloLearn, "projector.3.", "projector.4.", "between modules 1 and 4, got 2"),
        (Layout::SoloLearn, "projector.3.", "projector.3.", ""),
        (Layout::SoloLearn, "projector.", "projector.1", "module 0, got module 10 as the first"),
        (Layout::EmpSsl, "module.projection.0.", "module.projection.1.", "between modules 1 and 1, got 2"),
    ];
    for (layout, old, new, why) in cases {
        let imported = imported(&renamed(&tensors(layout), |name| name.replace(old, new)));
        let names: Vec<String> = imported.tensors.into_iter().map(|(name, ..)| name).collect();
        let identity = !names.contains(&"projector.3.weight".to_string());
        assert_eq!(identity, !why.is_empty(), "{names:?}");
        if identity {
            let note = &imported.notes[0];
            assert!(note.starts_with("projector: replaced by the identity") && note.contains(why), "{note}");
            assert_eq!((imported.unused.len(), imported.spec.layer), (8, FeatureLayer::Embedding));
        }
    }
}

#[test]
fn missing_and_unexpected_tensors_are_named() {
    let whole = tensors(Layout::SoloLearn);
    let mut less = whole.clone();
    less.retain(|(name, ..)| name != "backbone.bn1.weight");
    refused(&file(&less), &options(), &["missing", "bn1.weight"]);
    let mut more = whole.clone();
    more.push(("classifier.weight".into(), vec![2, 64], vec![0.0; 128]));
    more.push(("backbone.fc.bias".into(), vec![2], vec![0.0; 2]));
    refused(&file(&more), &options(), &["unexpected", "classifier.weight", "backbone.fc.bias"]);
    let allowed = ImportOptions { allow_unused: true, ..options() };
    let imported = import(&Foreign::from_bytes(&file(&more)).unwrap(), &allowed).unwrap();
    assert_eq!(imported.unused, ["backbone.fc.bias", "classifier.weight"]);
    // A larger encoder is never truncated to a smaller one.
    more.push(("backbone.layer3.9.conv1.weight".into(), vec![1], vec![0.0]));
    refused(&file(&more), &allowed, &["unexpected", "layer3.9.conv1.weight"]);
    let mut shaped = whole;
    shaped[0].1 = vec![16, 3, 1, 9];
    refused(&file(&shaped), &options(), &["first convolution", "[16, 3, 1, 9]"]);
}

#[test]
fn torchvision_round_trip() {
    let first = import(&Foreign::from_bytes(&file(&tensors(Layout::Torchvision))).unwrap(), &options()).unwrap();
    let bytes = checkpoint::to_bytes(&first.spec, &first.tensors).unwrap();
    // Importing a BagSSL checkpoint would lose its patches and its feature, which the tensors do
    // not contain.
    refused(&bytes, &options(), &["got a BagSSL checkpoint: use it directly"]);
    let exported = to_torchvision(&Checkpoint::from_bytes(&bytes).unwrap()).unwrap();
    let foreign = Foreign::from_bytes(&exported).unwrap();
    assert_eq!(foreign.get("bn1.num_batches_tracked").unwrap().dtype(), DType::Integer(8));
    assert_eq!(import(&foreign, &options()).unwrap(), first);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// A changed file is read or rejected, and the tensors of a readable file can be read.
    #[test]
    fn mutated_file_is_read_or_refused(places in prop::collection::vec((0..ODD.len(), any::<u8>()), 1..6), cut in 0..ODD.len()) {
        for bytes in [ODD.to_vec(), ODD[..cut].to_vec(), LIGHTNING.to_vec()] {
            let mut bytes = bytes;
            for &(place, byte) in &places {
                let length = bytes.len().max(1);
                if let Some(target) = bytes.get_mut(place % length) {
                    *target = byte;
                }
            }
            if let Ok(foreign) = Foreign::from_bytes(&bytes) {
                let values: usize = foreign.names().map(|name| {
                    let tensor = foreign.get(name).unwrap();
                    tensor.values().map_or(0, |values| values.len())
                }).sum();
                prop_assert!(values <= 2 * bytes.len());
            }
        }
    }
}
