//! Malicious files, byte by byte.

use std::prelude::v1::*;

use super::Foreign;
use super::pickle::{Pickle, Value};
use super::zip::Archive;

#[track_caller]
fn refused(pickle: &[u8], words: &str) {
    let error = Pickle::from_bytes(pickle).unwrap_err().to_string();
    assert!(error.contains(words) && !error.contains('\n'), "{error}");
}

#[test]
fn pickle_refuses_calls_and_other_globals() {
    refused(b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.", "global \"os.system\" is not allowed, at byte 2");
    refused(b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "global \"posix.system\" is not allowed");
    refused(b"\x80\x02cbuiltins\neval\n.", "\"builtins.eval\"");
    refused(b"\x80\x02(X\x02\x00\x00\x00lsios\nsystem\n.", "opcode INST (0x69) is not allowed");
    refused(b"\x80\x02(cargparse\nNamespace\no.", "opcode OBJ");
    for (opcode, name) in [(0x82, "EXT1"), (0x83, "EXT2"), (0x84, "EXT4"), (0x92, "NEWOBJ_EX"), (b'P', "PERSID")] {
        refused(&[0x80, 2, opcode, 1, 0, 0, 0, b'.'], name);
    }
    refused(b"\x80\x02c__builtin__\ngetattr\n.", "__builtin__.getattr");
    refused(b"\x80\x02ctorch.storage\n_load_from_bytes\n.", "_load_from_bytes");
    refused(b"\x80\x02ctorch\nEvilStorage\n.", "torch.EvilStorage");
    // Known globals reject other arguments. Values and inert objects cannot be called.
    refused(b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "known arguments");
    refused(b"\x80\x02X\x01\x00\x00\x00a)R.", "allowed global");
    refused(b"\x80\x02cargparse\nNamespace\n)\x81)R.", "allowed global");
    refused(b"\x80\x02K\x01}b.", "BUILD");
    refused(b"\x80\x02ctorch._utils\n_rebuild_parameter\ncargparse\nNamespace\n)\x81\x85R.", "expected a tensor");
    refused(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "expected (storage, offset");
    refused(b"\x80\x02K\x01Q.", "persistent id");
    assert!(Pickle::from_bytes(b"\x80\x02cargparse\nNamespace\n)\x81}X\x01\x00\x00\x00aK\x01sb.").is_ok());
}

/// Objects that training programs store beside the weights, as Python's `pickle.dumps` writes them
/// in protocols 2 and 4.
#[test]
fn other_archive_contents_are_inert() {
    let array = b"_reconstruct\ncnumpy\nndarray\nK\x00\x85c_codecs\nencode\nX\x01\0\0\0bX\x06\0\0\0latin1\x86R\x87R(K\x01K\x01\
        \x85cnumpy\ndtype\nX\x02\0\0\0u1\x89\x88\x87R(K\x03X\x01\0\0\0|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89C\x01\x07tb.";
    let cases: [&[u8]; 16] = [
        b"\x80\x02ccollections\nCounter\nq\x00}q\x01K\x03K\x01s\x85q\x02Rq\x03.",
        b"\x80\x02cfunctools\npartial\nq\x00c__builtin__\nlong\nq\x01\x85q\x02Rq\x03(h\x01)}q\x04X\x04\0\0\0baseq\x05K\x02sNtq\x06b.",
        b"\x80\x02cfunctools\npartial\nc__main__\nf\nq\x01\x85R(h\x01)}Ntb.",
        b"\x80\x04\x8c\x08datetime\x94\x8c\x04date\x94\x93\x94C\x04\x07\xe6\x06\x11\x94\x85\x94R\x94.",
        b"\x80\x02cdatetime\ntimezone\ncdatetime\ntimedelta\nK\x00K\x00K\x00\x87R\x85R.",
        b"\x80\x02c__builtin__\ncomplex\nG\0\0\0\0\0\0\0\0G?\xf0\0\0\0\0\0\0\x86R.",
        b"\x80\x02c__builtin__\nslice\nK\x01K\x02N\x87R.",
        b"\x80\x02c__builtin__\nset\n]q\x01(K\x01K\x02e\x85R.",
        b"\x80\x04\x8f\x94(K\x01K\x02\x90.",
        b"\x80\x04(K\x01\x91\x94.",
        &[b"\x80\x02cnumpy.core.multiarray\n".as_slice(), array].concat(),
        &[b"\x80\x02cnumpy._core.multiarray\n".as_slice(), array].concat(),
        b"\x80\x02cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\0\0\0f8\x89\x88\x87RC\x08\0\0\0\0\0\0\0\0\x86R.",
        b"\x80\x02cnumpy.random._pickle\n__randomstate_ctor\nX\x07\0\0\0MT19937\x85R}b.",
        b"\x80\x02ccollections\ndeque\n)RK\x01a.",
        b"\x80\x02cpathlib._local\nPosixPath\nX\x01\0\0\0a\x85R.",
    ];
    for pickle in cases {
        let read = Pickle::from_bytes(pickle).map(|pickle| pickle.root().clone()).map_err(|error| error.to_string());
        assert_eq!(read, Ok(Value::Inert), "{pickle:?}");
    }
    refused(b"\x80\x04](K\x01\x90.", "expected a set");
    refused(b"\x80\x04\x8fK\x01\x90.", "expected a mark");
    refused(b"\x80\x04K\x01\x91.", "expected a mark");
}

/// A class of a network library means that the entire model was saved. The error recommends saving
/// its state dict.
#[test]
fn full_model_class_is_recognized() {
    let advice = "torch.save(model.state_dict(), PATH)";
    refused(b"\x80\x02ctorchvision.models.resnet\nResNet\n.", advice);
    refused(b"\x80\x02cmy.models.encoder\nEncoder\n.", advice);
    for other in [&b"\x80\x02cos\nsystem\n."[..], b"\x80\x02cmy.models\nsystem\n."] {
        let error = Pickle::from_bytes(other).unwrap_err().to_string();
        assert!(error.contains("is not allowed") && !error.contains("state_dict"), "{error}");
    }
}

#[test]
fn other_file_kinds_are_named() {
    let tar = [&b"sys_info"[..], &[0; 249], b"ustar", &[0; 250]].concat();
    for (bytes, word) in [
        (&tar[..], "a tar, the format used before PyTorch 0.1.10"),
        (b"\x80\x04\x95abc", "a bare pickle"),
        (b"<!DOCTYPE HTML><p>", "an HTML page"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"no model of any kind", "got neither"),
    ] {
        let error = Foreign::from_bytes(bytes).unwrap_err().to_string();
        assert!(error.contains("expected PyTorch's zip format or safetensors") && error.contains(word), "{error}");
    }
}

/// VICReg's checkpoint refers to the function of its script that selects the tensors without weight
/// decay.
#[test]
fn recorded_exploits_are_not_executed() {
    assert!(Pickle::from_bytes(b"\x80\x02c__main__\nexclude_bias_and_norm\n.").is_ok());
    assert!(Pickle::from_bytes(b"\x80\x04\x8c\x08__main__\x8c\x01f\x93.").is_ok());
    for call in [b"R", b"\x81"] {
        let pickle = [b"\x80\x02c__main__\nexclude_bias_and_norm\n)".as_slice(), call, b"."].concat();
        refused(&pickle, "\"__main__.exclude_bias_and_norm\" is defined in the training script and is never called");
    }
    refused(b"\x80\x02c__main__\nf\n}b.", "BUILD");
    refused(b"\x80\x02c__main__\nf\n)}\x92.", "NEWOBJ_EX");
    refused(b"\x80\x02cmain_vicreg\nexclude_bias_and_norm\n.", "\"main_vicreg.exclude_bias_and_norm\" is not allowed");
    refused(b"\x80\x02ctorch._utils\n_rebuild_parameter\nc__main__\nf\n\x85R.", "expected a tensor");
    let group = b"X\x09\0\0\0optimizer}X\x0c\0\0\0param_groups]}X\x06\0\0\0filterc__main__\nexclude_bias_and_norm\nsas";
    let pickle = [b"\x80\x02}(X\x05\0\0\0model", &state(b"t")[..], group, b"u."].concat();
    let bytes = archive(&[("a/data.pkl", &pickle), ("a/data/0", &[0; 8])]);
    assert_eq!(Foreign::from_bytes(&bytes).unwrap().get("t").unwrap().values().unwrap(), [0.0; 2]);
}

/// A pickled dictionary with one tensor of two values.
fn state(name: &[u8; 1]) -> Vec<u8> {
    let tensor = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQK\x00\
        K\x02\x85K\x01\x85\x89N}tR";
    [b"}X\x01\0\0\0", &name[..], tensor, b"s"].concat()
}

/// If the tensors are nested under unknown keys, the error names the keys.
#[test]
fn unknown_wrapper_is_named() {
    let refused = |pickle: &[u8], words: &[&str]| {
        let bytes = archive(&[("a/data.pkl", pickle), ("a/data/0", &[0; 8])]);
        let error = Foreign::from_bytes(&bytes).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)) && !error.contains('\n'), "{error}");
    };
    let known = "under one of [\"state_dict\", \"model\", \"model_state_dict\"]";
    let both = [
        b"\x80\x02}(X\x05\0\0\0epochK\x03X\x07\0\0\0student",
        &state(b"a")[..],
        b"X\x07\0\0\0teacher",
        &state(b"a"),
        b"u.",
    ];
    refused(&both.concat(), &[known, "got dictionaries of tensors under [\"student\", \"teacher\"]"]);
    refused(
        b"\x80\x02}X\x05\0\0\0model}X\x05\0\0\0epochK\x03ss.",
        &["state dict [\"model\"]", known, "another type under \"epoch\""],
    );
}

#[test]
fn pickle_lengths_and_stack_are_bounded() {
    refused(b"\x80\x02X\xff\xff\xff\xffa.", "expected 4294967295 more bytes, got 2");
    refused(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.", "more bytes");
    refused(b"\x80\x02T\xff\xff\xff\x7fa.", "more bytes");
    refused(b"\x80\x02h\x07.", "expected memo entry 7, got none");
    refused(b"\x80\x06.", "protocol");
    refused(b"\x80\x02", "more bytes");
    refused(b"\x80\x02.", "expected a value on the stack");
    refused(b"\x80\x02(.", "expected a value on the stack");
    refused(b"\x80\x02}(K\x01u.", "pairs of keys and values");
    refused(&[b"\x80\x02".as_slice(), &[b'('; 300_000]].concat(), "expected a stack of at most");
    let many = [b"\x80\x02".as_slice(), &b"N0".repeat(1 << 21), b"."].concat();
    refused(&many, "expected at most 1048576 values");
    refused(&vec![b'N'; (16 << 20) + 1], "expected at most 16777216 bytes");
}

/// 100,000 nested lists, a list that contains itself, and a list that doubles 60 times by sharing.
#[test]
fn pickle_depth_cycles_and_sharing_are_cheap() {
    let deep = [b"\x80\x02".as_slice(), &[b']'; 100_000], &[b'a'; 99_999], b"."].concat();
    assert!(Pickle::from_bytes(&deep).is_ok());
    assert!(Pickle::from_bytes(b"\x80\x02]q\x00h\x00a.").is_ok());
    let mut bomb = b"\x80\x02]q\x00".to_vec();
    for _ in 0..60 {
        bomb.extend(b"0](h\x00h\x00eq\x00");
    }
    bomb.push(b'.');
    assert!(Pickle::from_bytes(&bomb).is_ok());
}

/// An archive of stored entries.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let (offset, size) = (bytes.len() as u32, content.len() as u32);
        let sizes = [size.to_le_bytes(), size.to_le_bytes()].concat();
        bytes.extend(b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        bytes.extend([&sizes[..], &(name.len() as u16).to_le_bytes(), &[0, 0], name.as_bytes(), content].concat());
        directory.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        directory.extend([&sizes[..], &(name.len() as u16).to_le_bytes(), &[0; 12]].concat());
        directory.extend([&offset.to_le_bytes(), name.as_bytes()].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let (length, start) = ((directory.len() as u32).to_le_bytes(), (bytes.len() as u32).to_le_bytes());
    bytes.extend(directory);
    bytes.extend([b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count, &length, &start, &[0, 0]].concat());
    bytes
}

#[track_caller]
fn broken(bytes: &[u8], words: &str) {
    let error = Archive::from_bytes(bytes).unwrap_err().to_string();
    assert!(error.contains(words) && !error.contains('\n'), "{error}");
}

#[test]
fn inconsistent_zip_is_refused() {
    let good = archive(&[("a/x", b"12345"), ("a/y", b"678")]);
    assert_eq!(Archive::from_bytes(&good).unwrap().get("a/y"), Some(b"678".as_slice()));
    let first = good.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    let second = first + 49;
    let changed = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    broken(&changed(first + 10, &[8]), "expected an uncompressed entry, got method 8");
    broken(&changed(first + 8, &[1]), "flags 0x1");
    broken(&changed(first + 24, &[200]), "and 200 unpacked");
    let cut = "bytes with their header at";
    broken(&changed(first + 20, &[200, 0, 0, 0, 200]), &format!("\"a/x\": 200 {cut} 0: Unexpected end"));
    broken(&changed(second + 42, &[0, 0]), "\"a/y\": expected this name in the local header, got \"a/x\"");
    broken(&changed(second + 42, &[255, 255]), &format!("\"a/y\": 3 {cut} 65535: Unexpected end"));
    broken(&changed(second + 42, &[255, 255, 255, 255]), &format!("\"a/y\": 3 {cut} 4294967295: Unexpected end"));
    // The first entry grows over the second.
    broken(&changed(first + 20, &[9, 0, 0, 0, 9]), "overlap");
    // The entries grow over the directory.
    broken(&changed(second + 20, &[9, 0, 0, 0, 9]), "overlap");
    broken(&changed(good.len() - 12, &[255, 255]), "expected 65535 entries, got 2");
    broken(&changed(good.len() - 12, &[3, 0]), "expected 3 entries, got 2");
    broken(&changed(good.len() - 12, &[1, 0]), "expected 1 entries, got more");
    broken(&changed(second, b"PK\x07\x08"), "Invalid signature");
    broken(&archive(&[("a", b"1"), ("a", b"2")]), "two entries are named");
    broken(&good[..good.len() - 1], "Unexpected end of file");
    broken(&changed(first + 46, &[0xff]), "expected names in UTF-8, got \"\u{fffd}/x\"");
    broken(b"PK\x03\x04", "Missing end of central directory");
}

/// A tensor of 2^40 values in a storage of two, tensors that exceed their storage, a storage of
/// another length than stated, and a negative size.
#[test]
fn tensor_outside_its_storage_is_refused() {
    let tensor = |count: u8, shape: &[u8], stride: u8| {
        let id =
            [b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK", &[count][..]];
        let parts = [b"\x80\x02}X\x01\x00\x00\x00tctorch._utils\n_rebuild_tensor_v2\n", &id.concat()[..], b"tQK\x00"];
        [&parts.concat()[..], shape, b"\x85K", &[stride], b"\x85\x89N}tRs."].concat()
    };
    let read = |pickle: &[u8], storage: &[u8]| {
        let bytes = archive(&[("a/data.pkl", pickle), ("a/data/0", storage)]);
        Foreign::from_bytes(&bytes).map(|foreign| foreign.get("t").unwrap().values().unwrap())
    };
    let two = [1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes()].concat();
    assert_eq!(read(&tensor(2, b"K\x02", 1), &two).unwrap(), [1.0, 2.0]);
    for pickle in [tensor(2, b"\x8a\x06\0\0\0\0\0\x01", 0), tensor(2, b"K\x02", 2), tensor(2, b"K\x03", 0)] {
        let error = read(&pickle, &two).unwrap_err().to_string();
        assert!(error.contains("does not fit into 2 values"), "{error}");
    }
    let error = read(&tensor(3, b"K\x02", 1), &two).unwrap_err().to_string();
    assert!(error.contains("expected a storage of 3 values"), "{error}");
    assert!(read(&tensor(2, b"\x8a\x01\xff", 1), &two).is_err());
}

/// Sixty tensors that share a storage of 250 values.
#[test]
fn overlapping_tensors_are_bounded() {
    let storage = b"X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\xfa";
    let tensor =
        [b"ctorch._utils\n_rebuild_tensor_v2\n((".as_slice(), storage, b"tQK\x00K\xfa\x85K\x01\x85\x89N}tR"].concat();
    let entry = |name: u8| [b"X\x01\0\0\0".as_slice(), &[name], b"h\x00"].concat();
    let entries: Vec<u8> = (0..60).flat_map(|number| entry(b'A' + number)).collect();
    let pickle = [b"\x80\x02", &tensor[..], b"q\x000}(", &entries, b"u."].concat();
    let bytes = archive(&[("a/data.pkl", &pickle), ("a/data/0", &[0; 1000])]);
    let error = Foreign::from_bytes(&bytes).unwrap_err().to_string();
    let (most, length) = (2 * bytes.len(), bytes.len());
    let expected =
        format!("expected at most {most} values in a file of {length} bytes, got 15000 in overlapping tensors");
    assert!(error.ends_with(&expected), "{error}");
}

/// A safetensors file with one 8-bit floating-point value.
#[test]
fn unknown_dtype_is_named() {
    let header = br#"{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header, &[0]].concat();
    let error = Foreign::from_bytes(&bytes).unwrap_err().to_string();
    assert!(
        error.ends_with("\"a\": expected F64, F32, F16, BF16, or integers of up to 64 bits, got F8_E4M3"),
        "{error}"
    );
}
