use super::header::MAX_HEADER_BYTES;
use super::*;
use crate::architecture::{Architecture, mlp};
use crate::bag::Views;
use crate::embed::FeatureLayer;
use crate::normalize::Normalization;
use crate::patch::{Filter, PatchSide, PatchSpec};
use crate::plan::{Kind, Plan};
use proptest::prelude::*;

fn spec() -> Spec {
    let patch = PatchSpec::new(PatchSide::Pixels(32), 16).unwrap();
    Spec {
        format_version: FORMAT_VERSION,
        model: ModelPlan::new(Architecture::ResNetSmall.plan(), mlp(64, &[8, 4]).unwrap()).unwrap(),
        patch,
        filter: Filter::Bilinear,
        normalization: Normalization::HALF,
        layer: FeatureLayer::Embedding,
        views: Views::FixedScale(patch),
        provenance: Provenance { seed: u64::MAX, ..Provenance::default() },
        training: None,
    }
}

fn tensors(spec: &Spec) -> Vec<NamedTensor> {
    let fill = |parameter: Parameter| {
        let min = if parameter.role == Role::RunningVariance { 0.0 } else { -3.0 };
        let values = (0..parameter.len()).map(|index| index as f32 * 0.25 + min).collect();
        (parameter.name, parameter.shape, values)
    };
    spec.model.parameters().into_iter().map(fill).collect()
}

/// A file with the given metadata instead of its own.
fn with_metadata(spec: &Spec, json: &str) -> Vec<u8> {
    let bytes = to_bytes(spec, &tensors(spec)).unwrap();
    let metadata = [(METADATA_KEY.to_string(), json.to_string())].into_iter().collect();
    safetensors::serialize(SafeTensors::deserialize(&bytes).unwrap().tensors(), Some(metadata)).unwrap()
}

fn refused(bytes: &[u8], words: &str) {
    let error = Checkpoint::from_bytes(bytes).unwrap_err().to_string();
    assert!(error.contains(words) && !error.contains('\n'), "{error}");
}

#[test]
fn checkpoint_round_trip() {
    let spec = spec();
    let tensors = tensors(&spec);
    let bytes = to_bytes(&spec, &tensors).unwrap();
    assert_eq!(bytes, to_bytes(&spec, &tensors).unwrap());
    let read = Checkpoint::from_bytes(&bytes).unwrap();
    assert_eq!(read.spec(), &spec);
    assert_eq!(read.names().len(), tensors.len());
    for (name, _, values) in &tensors {
        assert_eq!(&read.values(name).unwrap(), values);
    }
    assert!(read.values("encoder.nothing").is_err());
}

#[test]
fn mismatch_errors_name_the_tensor() {
    let spec = spec();
    let mut changed = tensors(&spec);
    changed[0].1 = vec![3, 16, 3, 3];
    refused(&to_bytes(&spec, &changed).unwrap(), "\"encoder.conv1.weight\": expected shape [16, 3, 3, 3], got [3, 16");
    let missing = tensors(&spec).split_off(1);
    refused(&to_bytes(&spec, &missing).unwrap(), "expected tensor \"encoder.conv1.weight\", got none");
    let mut more = tensors(&spec);
    more.push(("optimiser.momentum.x".into(), vec![1], vec![0.0]));
    let bytes = to_bytes(&spec, &more).unwrap();
    refused(&bytes, "\"optimiser.momentum.x\" is not in the plan");
    let training = Training {
        epoch: 1,
        batch: 2,
        step: 3,
        skipped: 1,
        summed: 2,
        sums: vec![0.1_f64.to_bits(), u64::MAX],
        config: 4,
        fixed: vec![("batch.images".into(), "8".into())],
        settings: vec![("rate".into(), "0.1".into())],
        changes: vec![SettingChange { step: 1, setting: "rate".into(), from: "0.2".into(), to: "0.1".into() }],
    };
    let resumable = Spec { training: Some(training), ..spec.clone() };
    let bytes = to_bytes(&resumable, &more).unwrap();
    assert_eq!(Checkpoint::from_bytes(&bytes).unwrap().spec(), &resumable);
    let newer = with_metadata(&spec, r#"{"format_version":3}"#);
    refused(&newer, "expected format version 2 or 1, got 3");
    let twice = [tensors(&spec), tensors(&spec)].concat();
    assert!(to_bytes(&spec, &twice).is_err());
}

/// The digest does not cover it.
#[test]
fn other_metadata_is_refused_unless_there_is_no_digest() {
    let bytes = to_bytes(&spec(), &tensors(&spec())).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut entries = metadata.metadata().clone().unwrap();
    entries.insert("note".into(), "mine".into());
    let with = |entries| safetensors::serialize(SafeTensors::deserialize(&bytes).unwrap().tensors(), Some(entries));
    refused(&with(entries.clone()).unwrap(), "expected metadata \"bagssl\" only, got also \"note\"");
    let json = digest::split(&entries[METADATA_KEY]).unwrap().0.replacen("version\":2", "version\":1", 1);
    entries.insert(METADATA_KEY.into(), json);
    Checkpoint::from_bytes(&with(entries).unwrap()).unwrap();
}

/// bf16 has 8 bits of precision: 1 + 2^-8 is a tie and rounds to the even 1. int8 has 127 steps up
/// to the largest magnitude.
#[test]
fn convert_by_hand() {
    let spec = spec();
    let mut tensors = tensors(&spec);
    let first = &mut tensors[0];
    assert_eq!((first.0.as_str(), first.1[0]), ("encoder.conv1.weight", 16));
    first.2[..4].copy_from_slice(&[1.0 + 1.0 / 256.0, -2.54, 0.011, 1.27]);
    first.2[4..27].fill(0.0);
    first.2[27..54].fill(0.0);
    let bytes = to_bytes(&spec, &tensors).unwrap();
    let whole = Checkpoint::from_bytes(&bytes).unwrap();
    let half = convert(&whole, WeightType::Bf16).unwrap();
    let half = Checkpoint::from_bytes(&half).unwrap();
    assert_eq!(half.weight_type(), WeightType::Bf16);
    assert_eq!(half.values("encoder.conv1.weight").unwrap()[..2], [1.0, -2.546_875]);
    let byte = convert(&whole, WeightType::Int8).unwrap();
    assert!(bytes.len() > 3 * byte.len());
    let byte = Checkpoint::from_bytes(&byte).unwrap();
    assert_eq!(byte.weight_type(), WeightType::Int8);
    let values = byte.values("encoder.conv1.weight").unwrap();
    // Steps of 0.02.
    for (value, expected) in values.iter().zip([1.0, -2.54, 0.02, 1.28]) {
        assert!((value - expected).abs() < 1e-6, "{value} {expected}");
    }
    assert_eq!(values[27..54], [0.0; 27], "an output of zeros stays one");
    assert_eq!(byte.values("encoder.bn1.weight").unwrap(), whole.values("encoder.bn1.weight").unwrap());
    // Converting int8 to f32 and back preserves the values.
    let again = convert(&byte, WeightType::F32).unwrap();
    let again = convert(&Checkpoint::from_bytes(&again).unwrap(), WeightType::Int8).unwrap();
    let again = Checkpoint::from_bytes(&again).unwrap().values("encoder.conv1.weight").unwrap();
    assert!(again.iter().zip(&values).all(|(a, b)| (a - b).abs() < 1e-6));
    tensors[0].2[5] = f32::INFINITY;
    let broken = to_bytes(&spec, &tensors).unwrap();
    let broken = convert(&Checkpoint::from_bytes(&broken).unwrap(), WeightType::Int8).unwrap_err().to_string();
    assert!(broken.contains("\"encoder.conv1.weight\": expected finite values, got inf"), "{broken}");
}

#[test]
fn format_1_without_digest_is_read() {
    let old = Spec { format_version: 1, ..spec() };
    let bytes = with_metadata(&old, &serde_json::to_string(&old).unwrap());
    let read = Checkpoint::from_bytes(&bytes).unwrap();
    assert_eq!(read.spec(), &old);
    assert!(!read.has_digest());
    let again = convert(&read, WeightType::F32).unwrap();
    let again = Checkpoint::from_bytes(&again).unwrap();
    assert_eq!(again.spec(), &spec());
    assert!(again.has_digest());
}

#[test]
fn missing_or_wrong_digest_is_refused() {
    let json = serde_json::to_string(&spec()).unwrap();
    refused(&with_metadata(&spec(), &json), "expected a digest at the end of the metadata");
    let wrong = with_metadata(&spec(), &digest::join(&json, 7));
    refused(&wrong, "the file is corrupt: expected digest 0000000000000007, got ");
    let trusted = Checkpoint::from_bytes_unverified(&wrong).unwrap();
    assert!(trusted.verify().is_err());
    // A spec edited by hand, with the original digest.
    let bytes = to_bytes(&spec(), &tensors(&spec())).unwrap();
    let text = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().as_ref().unwrap()[METADATA_KEY].clone();
    assert!(text.contains("\"seed\":18446744073709551615"));
    refused(&with_metadata(&spec(), &text.replace("709551615", "709551614")), "the file is corrupt");
}

/// Flips 200 bits over the entire file, including the header; each is detected.
#[test]
fn flipped_bit_is_detected() {
    let bytes = to_bytes(&spec(), &tensors(&spec())).unwrap();
    assert!(Checkpoint::from_bytes(&bytes).is_ok());
    for attempt in 0..200 {
        // Half of them in the header, which is a few percent of the file.
        let header = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
        let (min, length) = if attempt % 2 == 0 { (0, header) } else { (header, bytes.len() - header) };
        let place = min + (attempt * 7919 + 13) % length;
        let mut changed = bytes.clone();
        changed[place] ^= 1 << (attempt / 2 % 8);
        assert!(Checkpoint::from_bytes(&changed).is_err(), "byte {place}, bit {}", attempt / 2 % 8);
    }
}

#[test]
fn other_file_formats_are_refused() {
    refused(b"", "expected a safetensors file, got 0 bytes");
    refused(b"\x89PNG\r\n\x1a\n and more", "expected a safetensors file");
    let foreign = safetensors::serialize(Vec::<(&str, TensorView<'_>)>::new(), None).unwrap();
    refused(&foreign, "without it");
    let bytes = to_bytes(&spec(), &tensors(&spec())).unwrap();
    refused(&bytes[..bytes.len() - 1], "expected a safetensors file");
}

#[test]
fn projector_input_must_match_encoder_output() {
    let encoder = Architecture::ResNetSmall.plan();
    assert!(ModelPlan::new(encoder.clone(), mlp(63, &[4]).unwrap()).is_err());
    assert!(ModelPlan::new(mlp(64, &[4]).unwrap(), mlp(4, &[4]).unwrap()).is_err());
    let model = ModelPlan::new(encoder, mlp(64, &[8, 4]).unwrap()).unwrap();
    assert_eq!(
        [FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection].map(|layer| model.dim(layer)),
        [64, 8, 4]
    );
}

proptest! {
    #[test]
    fn any_header_change_is_read_or_refused(place in 0usize..4000, byte: u8) {
        let mut bytes = to_bytes(&spec(), &tensors(&spec())).unwrap();
        bytes[place] = byte;
        if let Ok(read) = Checkpoint::from_bytes(&bytes) {
            prop_assert!(read.spec().model.parameters().iter().all(|p| read.values(&p.name).unwrap().len() == p.len()));
        }
    }
}

/// Checking the header alone gives the same errors as the entire file: excessive plans, a wrong
/// file length, an unbounded header.
#[test]
fn check_header_refuses_without_tensors() {
    let spec = spec();
    let bytes = to_bytes(&spec, &tensors(&spec)).unwrap();
    let length = header_length(*bytes.first_chunk().unwrap()).unwrap();
    let header = &bytes[..length];
    check_header(header, bytes.len() as u64).unwrap();
    let error = |header: &[u8], length| check_header(header, length).unwrap_err().to_string();
    let total = bytes.len() as u64;
    assert!(
        error(header, total - 1).contains(&format!("expected a safetensors file of {total} bytes, got {}", total - 1))
    );
    assert!(error(&header[..length - 1], total).contains("a truncated header"));
    let huge = [&(MAX_HEADER_BYTES as u64 + 1).to_le_bytes()[..], &header[8..]].concat();
    assert!(error(&huge, total).contains("a header of at most 8388608 bytes, got a header of 8388609"));
    refused(&huge, "a header of at most 8388608 bytes");
    refused(&u64::MAX.to_le_bytes(), "a header of at most 8388608 bytes");
}

/// Two layers with 256 KiB of weights whose map would need 100 GiB, and a network with too many
/// layers.
#[test]
fn oversized_plan_is_refused() {
    let conv = |number: usize, inputs: usize, kernel: [usize; 2], padding: [usize; 2]| {
        let window = crate::plan::Window { kernel, stride: [1, 1], padding };
        let (conv, norm) = (format!("conv{number}"), format!("bn{number}"));
        let op = crate::plan::Op::ConvNorm { conv, norm, inputs, outputs: 1, window, residual: None, relu: true };
        crate::plan::Layer { input: number, op }
    };
    let model = |layers: Vec<crate::plan::Layer>| {
        let mean = crate::plan::Layer { input: layers.len(), op: crate::plan::Op::GlobalMean };
        let encoder = Plan::new(Kind::Map(3), [layers, vec![mean]].concat()).unwrap();
        ModelPlan::new(encoder, mlp(1, &[1]).unwrap()).unwrap()
    };
    let wide = vec![conv(0, 3, [1 << 14, 1], [3 << 14, 0]), conv(1, 1, [1, 1 << 14], [0, 3 << 14])];
    let wide = Spec { model: model(wide), ..spec() };
    refused(
        &to_bytes(&wide, &tensors(&wide)).unwrap(),
        "encoder: expected feature maps of at most 1024 MiB for a patch of side 16, got ",
    );
    let deep = (0..4096).map(|number| conv(number, if number == 0 { 3 } else { 1 }, [1, 1], [0, 0])).collect();
    let deep = Spec { model: model(deep), ..spec() };
    refused(&to_bytes(&deep, &tensors(&deep)).unwrap(), "encoder: expected at most 4096 layers, got 4097");
}
