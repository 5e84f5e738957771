//! The CUDA path on a CPU: the program with a stub of CUDA's libraries (`bagssl-cuda/tests/stub`), which computes what a
//! GPU would and records each call. Skipped where there is no compiler for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::bagssl;
use crate::support::stub::{Run, counts, stub, sum};

/// Images, patches and epochs of a small training: a few steps.
const TRAIN: [&str; 9] = ["train", "--patches", "2", "--epochs", "1", "--images", "60", "--json", "--out"];

/// The losses of a training's steps.
fn losses(folder: &Path, out: &str) -> Vec<f64> {
    let lines = fs::read_to_string(folder.join(out).join("metrics.jsonl")).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| line["loss"].as_f64()).collect()
}

/// A failed run says one line, with these words.
#[track_caller]
fn says(run: &Run, words: &[&str]) {
    let text = run.stderr();
    assert!(!run.output.status.success(), "{}", run.stdout());
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "expected {words:?} in {text}");
}

#[test]
fn the_doctor_finds_what_is_there() {
    let Some(stub) = stub() else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = stub.bagssl(folder.path(), &["doctor"], &[]).succeeded();
    let text = run.stdout();
    assert!(text.contains("cuda     ready") && text.contains("compute capability 9.0"), "{text}");
    let parts = stub.bagssl(folder.path(), &["doctor", "--check", "--list"], &[]).succeeded().stdout();
    let names: Vec<&str> = parts.lines().filter_map(|line| line.split_once(' ')).map(|(name, _)| name).collect();
    assert!(["pool", "norm", "ordering", "fused-network"].iter().all(|name| names.contains(name)), "{parts}");
    for (library, name) in [("libcudnn", "cuDNN"), ("libcublas", "cuBLAS"), ("libnvrtc", "NVRTC")] {
        let run = stub.bagssl_without(library, folder.path(), &["bench", "train", "--backend", "cuda", "--steps", "1"]);
        says(&run, &["cuda: ", name, "LD_LIBRARY_PATH"]);
        fs::remove_dir_all(folder.path().join("libraries")).unwrap();
    }
}

/// Some of what the doctor compares, under Burn's fusion and without; all of it takes minutes here (the gate `stub`).
#[test]
fn doctor_comparisons_agree() {
    let Some(stub) = stub() else { return };
    let folder = tempfile::tempdir().unwrap();
    let only = "pool,linear,vectors,fused-loss";
    let run = stub.bagssl(folder.path(), &["doctor", "--check", "--only", only], &[]).succeeded();
    let text = run.stdout();
    assert!(text.contains(", 0 failed") && !text.contains("FAILED"), "{text}");
}

/// The steps that are timed, of four images with two patches.
const STEPS: [&str; 9] = ["bench", "train", "--backend", "cuda", "--images", "4", "--patches", "2", "--steps"];

/// What a step asks of the driver: no more launches than it has to, no waiting but for the figures of the step before, which are
/// copied before this one is queued, and no batch that goes up again.
#[test]
fn a_step_is_queued_without_waiting() {
    let Some(stub) = stub() else { return };
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.json");
    let profile = ["4", "--profile", trace.to_str().unwrap()];
    let run = stub.bagssl(folder.path(), &[&STEPS[..], &profile].concat(), &[]).succeeded();
    let steps = run.record.steps();
    assert!(steps.len() >= 7, "{} steps", steps.len());
    // The last step but one: the first find plans and memory, and the last is not followed by another.
    let step = steps[steps.len() - 2];
    let counts = counts(step);
    let count =
        |of: &str| counts.iter().filter(|(name, _)| name.starts_with(of)).map(|(_, count)| count).sum::<usize>();
    let (launches, cudnn, cublas) = (count("cuLaunchKernel "), count("cudnn "), count("cublasGemm"));
    // ResNet-small, four maps a block: 9 convolutions with three passes each but the first, which has no gradient of its input.
    assert_eq!(cudnn, 26, "{counts:?}");
    // Two linear layers with three passes each, and the loss.
    assert_eq!(cublas, 9, "{counts:?}");
    assert!(launches <= MAX_LAUNCHES, "{launches} launches: {counts:?}");
    // A weight is packed once for its passes, and so are the images; figures are put together once.
    assert_eq!(count("cuLaunchKernel pack_f32_bf16"), 9, "{counts:?}");
    assert_eq!(count("cuLaunchKernel pack_bf16_bf16"), 1, "{counts:?}");
    // The rows that a norm gives are read by the next product as they lie: Burn's copy would be this kernel.
    assert_eq!(count("cuLaunchKernel copy_kernel_t_f32_n_1"), 0, "{counts:?}");
    assert_eq!(count("cuLaunchKernel vectors_join") + count("cuLaunchKernel slice_assign"), 1, "{counts:?}");
    for waits in ["cuCtxSynchronize", "cuStreamSynchronize", "cuMemAlloc", "cuMemFree", "cuMemcpyDtoD"] {
        assert_eq!(count(waits), 0, "{waits}: {counts:?}");
    }
    // Gradients that meet are added where they lie: Burn's addition would be this kernel, on its own.
    assert_eq!(count("cuLaunchKernel kernel_binop"), 0, "{counts:?}");
    // A batch is 24 KiB; what goes up in a step are the sizes that Burn's kernels read, and 40 addresses a parameter table.
    let up = sum(step, "cuMemcpyHtoDAsync", "bytes") + sum(step, "cuMemcpy2DAsyncHtoD", "bytes");
    assert!(up < 16 << 10, "{up} bytes: {counts:?}");
    // The figures: one copy into pinned memory, which is queued in the step.
    let copies: Vec<_> = step.iter().filter(|line| line.starts_with("cuMemcpyDtoHAsync")).collect();
    assert!(copies.len() == 1 && copies[0].contains(" pinned=1 "), "{copies:?}");
    // It is waited for while the next step is queued, by another thread: the wait may be recorded on either side of a step's end, so
    // all settled steps are counted together. A step's second wait is for what was queued some 64 uploads ago, whose pinned memory is
    // used again.
    let settled = &steps[2..];
    let waits =
        settled.iter().flat_map(|step| step.iter()).filter(|line| line.starts_with("cuEventSynchronize")).count();
    let expected = settled.len() - 1..=2 * settled.len() + 1;
    assert!(expected.contains(&waits), "{waits} waits in {} steps: {counts:?}", settled.len());
    let place = |of: &str| step.iter().position(|line| line.starts_with(of)).unwrap();
    let optimizer = step.iter().position(|line| line.starts_with("cuLaunchKernel step_")).unwrap();
    assert!(place("cuMemcpyDtoHAsync") < optimizer, "figures are copied behind their own step");

    let trace: serde_json::Value = serde_json::from_slice(&fs::read(trace).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let on_device = events.iter().filter(|event| event["ph"] == "X" && event["pid"] == 1);
    // The 26 of each of four steps.
    assert!(on_device.filter(|event| event["name"].as_str().unwrap().contains("convolution")).count() >= 4 * 26);
    // A gradient has one name, on the host and on the device.
    let gradients = |process: u32| -> BTreeSet<&str> {
        let spans = events.iter().filter(|event| event["ph"] == "X" && event["pid"] == process);
        spans.filter_map(|event| event["name"].as_str()).filter(|name| name.contains("gradient")).collect()
    };
    assert!(gradients(1).len() >= 5, "{:?}", gradients(1));
    assert_eq!(gradients(0), gradients(1));
    let table = run.stdout();
    assert!(table.contains("profile of 4 steps") && table.contains("operations of cuDNN: 26.0 a step"), "{table}");
    // Burn's launches are not among those that are counted.
    let ours = launches - burns(&counts);
    assert!(table.contains(&format!("launches of this program's kernels: {ours}.0 a step")), "{ours}: {table}");
    assert!(table.contains(" bytes of workspace"), "{table}");
}

/// Launches of a step of that size: 97 are this project's, the rest Burn's for the loss and what autodiff keeps.
///
/// The prototype would make 132 and some 30 of its loss (counted in its source: 60 of norms, 22 of casts, 31 of SGD, 19 of pooling and
/// sums), with neither running statistics nor figures, and 32 plans of cuDNN and 3 products besides.
const MAX_LAUNCHES: usize = 160;

/// A step of ResNet-18 is as many launches as `docs/gpu/prediction.md` counts, beside those of the prototype. The size of maps
/// changes none.
#[test]
fn a_step_of_resnet18_has_the_launches_of_the_prediction() {
    let Some(stub) = stub() else { return };
    let folder = tempfile::tempdir().unwrap();
    let network = ["--arch", "resnet18-cifar", "--size", "8", "--preset", "bagssl-vicreg", "--projector", "2048,256"];
    let arguments = [&STEPS[..4], &network, &["--images", "2", "--patches", "2", "--steps", "2"]].concat();
    let run = stub.bagssl(folder.path(), &arguments, &[]).succeeded();
    let steps = run.record.steps();
    let counts = counts(steps[steps.len() - 2]);
    let count = |is: &dyn Fn(&str) -> bool| -> usize {
        counts.iter().filter(|(name, _)| is(name)).map(|(_, count)| count).sum()
    };
    let burns = burns(&counts);
    let ours = count(&|name| name.starts_with("cuLaunchKernel ")) - burns;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gpu/prediction.md");
    let page = fs::read_to_string(page).unwrap();
    let predicted = |what: &str| -> usize {
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("| {what} | "))).expect(what);
        line.trim_end_matches(" |").parse().expect(what)
    };
    assert_eq!(ours, predicted("kernels of bagssl"), "{counts:?}");
    assert_eq!(count(&|name| name.starts_with("cudnn ")), predicted("cuDNN plans"), "{counts:?}");
    assert_eq!(count(&|name| name.starts_with("cublasGemm")), predicted("cuBLAS products"), "{counts:?}");
    // Burn chooses among its kernels by measuring them.
    let expected = predicted("Burn's kernels, for the loss and what autodiff keeps");
    assert!(burns.abs_diff(expected) <= 8, "{burns} launches of Burn's, {expected} predicted: {counts:?}");
}

/// What the names of this project's kernels begin with.
const OURS: [&str; 11] = [
    "pack_",
    "unpack_",
    "norm_",
    "finish_",
    "max_pool_",
    "global_mean_",
    "sum_columns",
    "step_",
    "vectors_",
    "similarity_",
    "cholesky_",
];

/// The launches of Burn's kernels.
fn burns(counts: &BTreeMap<String, usize>) -> usize {
    let kernels = counts.iter().filter_map(|(name, count)| Some((name.strip_prefix("cuLaunchKernel ")?, count)));
    kernels.filter(|(name, _)| !OURS.iter().any(|start| name.starts_with(start))).map(|(_, count)| count).sum()
}

/// Memory stays level: what a step takes is given back, or used again by the next.
#[test]
fn two_hundred_steps_take_no_more_memory_than_twenty() {
    let Some(stub) = stub() else { return };
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        [&STEPS[..3], &["cuda", "--images", "2", "--patches", "2", "--size", "8", "--steps", "200"]].concat();
    let run = stub.bagssl(folder.path(), &arguments, &[]).succeeded();
    let steps = run.record.steps();
    assert!(steps.len() >= 200, "{} steps", steps.len());
    let used = |step: &[String]| {
        let mut used = step.iter().filter_map(|line| line.split(' ').find_map(|word| word.strip_prefix("used=")));
        used.next_back().map(|bytes| bytes.parse::<u64>().unwrap())
    };
    assert!(steps[..20].iter().any(|step| used(step).is_some()), "what is taken is recorded");
    let later: Vec<u64> = steps[20..].iter().filter_map(|step| used(step)).collect();
    assert_eq!(later, Vec::<u64>::new(), "memory is taken after the first 20 steps");
    let pinned = |steps: &[&[String]]| steps.iter().map(|step| sum(step, "cuMemAllocHost", "bytes")).sum::<u64>();
    assert!(pinned(&steps[..20]) > 0, "what is pinned is recorded");
    assert_eq!(pinned(&steps[20..]), 0, "pinned memory is taken after the first 20 steps");
}

/// What fails ends the run with one line that names it.
#[test]
fn failures_are_reported() {
    let Some(stub) = stub() else { return };
    let folder = tempfile::tempdir().unwrap();
    let arguments = [&STEPS[..], &["1"]].concat();
    for (fails, words) in [
        ("cuLaunchKernel/norm_merge:7", &["norm_merge", "LAUNCH_FAILED"][..]),
        ("cuMemAlloc:1", &["workspace", "OUT_OF_MEMORY"]),
        ("cublasCreate:1", &["cublasCreate"]),
        ("cudnnCreate:1", &["cudnnCreate"]),
        ("cublasGemmStridedBatchedEx:3", &["cublasGemmStridedBatchedEx"]),
        ("nvrtcCompileProgram:1+", &["kernels", "CUDA_STUB_FAIL"]),
        ("cuMemcpyDtoHAsync:1+", &["reading"]),
    ] {
        let run = stub.bagssl(folder.path(), &arguments, &[("CUDA_STUB_FAIL", fails)]);
        says(&run, words);
    }
    let large = [&STEPS[..4], &["--images", "400", "--patches", "2", "--steps", "1"]].concat();
    let run = stub.bagssl(folder.path(), &large, &[("CUDA_STUB_MEMORY", "9000000")]);
    says(&run, &["out of memory", "cannot allocate", "reduce the batch"]);
}

/// Batches are read late, in f32: the embeddings are those of the CPU.
#[test]
fn embeddings_are_those_of_the_cpu() {
    let Some(stub) = stub() else { return };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let output = bagssl(here, &[&TRAIN[..], &["run"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (half, class, count) in [("train", "a", 3), ("train", "b", 2), ("val", "a", 1), ("val", "b", 2)] {
        let folder = here.join("set").join(half).join(class);
        fs::create_dir_all(&folder).unwrap();
        for number in 0..count {
            let pixel = |x, y| image::Rgb([(9 * x + 50 * number) as u8, (7 * y) as u8, (x * y + number) as u8]);
            image::RgbImage::from_fn(37, 33, pixel).save(folder.join(format!("{number}.png"))).unwrap();
        }
    }
    // What is embedded, without where, and its embeddings.
    let features = |backend: &str, mode: &str| -> (BTreeMap<String, Vec<f32>>, Run) {
        let run = ["eval", "run/checkpoint.safetensors", "--data", "set", "--backend", backend];
        let eval = [&run[..], &["--features", backend, "--json"]].concat();
        let run = stub.bagssl(here, &eval, &[("CUDA_STUB_MODE", mode)]).succeeded();
        let folders = fs::read_dir(here.join(backend)).unwrap().map(|entry| entry.unwrap().path());
        let read = |folder: PathBuf| {
            let state: serde_json::Value =
                serde_json::from_slice(&fs::read(folder.join("embedding.json")).unwrap()).unwrap();
            let bytes = fs::read(folder.join("embedding.npy")).unwrap();
            let values = bytes[128..].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
            (state["of"].as_str().unwrap().replace(backend, "BACKEND"), values.collect())
        };
        (folders.filter(|folder| folder.is_dir()).map(read).collect(), run)
    };
    let ((expected, _), (got, run)) = (features("ndarray", "eager"), features("cuda-f32", "deferred"));
    assert!(!got.is_empty() && expected.keys().eq(got.keys()), "{:?} {:?}", expected.keys(), got.keys());
    for (of, expected) in &expected {
        assert_eq!(expected.len(), got[of].len(), "{of}");
        let apart = expected.iter().zip(&got[of]).map(|(a, b)| (a - b).abs());
        assert!(apart.clone().all(|apart| apart < 1e-4), "{of}: {:?}", apart.collect::<Vec<_>>());
    }
    // Up to the copy of its results a batch waits for nothing, once the plans for its size are found: then it runs its 9
    // convolutions alone. The norms are in the weights, which were made of them before the first batch.
    let batches = run.record.lines().split(|line| line.starts_with("cuMemcpyDtoHAsync")).map(counts);
    let known: Vec<_> = batches.filter(|counts| counts.get("cudnn forward") == Some(&9)).collect();
    assert!(known.len() >= 2, "{} batches whose plans are known", known.len());
    for counts in known {
        for waits in ["cuCtxSynchronize", "cuStreamSynchronize", "cuMemAlloc", "cuMemFree"] {
            assert_eq!(counts.get(waits), None, "{waits}: {counts:?}");
        }
        let fused = counts.get("cuLaunchKernel elemwise_fuse").copied().unwrap_or(0);
        assert!(fused <= 2, "the norms are folded again: {counts:?}");
    }
}

/// A GPU that computes in f32 takes the steps of the CPU, also where work waits until somebody waits for it: then whatever is
/// not ordered by events reads values that are not there yet.
#[test]
fn training_takes_the_steps_of_the_cpu() {
    let Some(stub) = stub() else { return };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let output = bagssl(here, &[&TRAIN[..], &["cpu"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = losses(here, "cpu");
    assert!(expected.len() >= 3, "{expected:?}");
    // What rounding makes of the first steps is known; each step makes more of it.
    for (out, backend, bounds, mode) in [
        ("exact", "cuda-f32", [1e-4, 2e-2], "eager"),
        ("deferred", "cuda-f32", [1e-4, 2e-2], "deferred"),
        ("bf16", "cuda", [2e-2, 5e-2], "eager"),
    ] {
        let arguments = [&TRAIN[..], &[out, "--backend", backend]].concat();
        let run = stub.bagssl(here, &arguments, &[("CUDA_STUB_MODE", mode)]).succeeded();
        agree(out, &losses(here, out), &expected, bounds);
        goes_up_once(&run);
    }
    // The order in which work is done is no part of what is computed.
    assert_eq!(losses(here, "exact"), losses(here, "deferred"));
}

/// Losses are those of the CPU, up to bounds of the relative difference: of the first three steps, and of later ones.
#[track_caller]
fn agree(out: &str, got: &[f64], expected: &[f64], bounds: [f64; 2]) {
    assert_eq!(got.len(), expected.len(), "{out}");
    for (step, (got, expected)) in got.iter().zip(expected).enumerate() {
        let (apart, bound) = ((got - expected).abs() / expected.abs(), bounds[usize::from(step >= 3)]);
        assert!(apart < bound, "{out}, step {}: {apart:.1e}: {got} instead of {expected}", step + 1);
    }
}

/// Bytes of a batch of [`TRAIN`]: 60 images, two patches of 16 x 16 pixels, three channels in f32.
const BATCH: u64 = 60 * 2 * 3 * 16 * 16 * 4;

/// In each settled step the batch goes up once, from pinned memory, and little besides.
#[track_caller]
fn goes_up_once(run: &Run) {
    let steps = run.record.steps();
    let settled = &steps[1..];
    assert!(settled.len() >= 2, "{} steps", steps.len());
    for (step, lines) in settled.iter().enumerate() {
        let up = |line: &&String| line.starts_with("cuMemcpyHtoDAsync") || line.starts_with("cuMemcpy2DAsyncHtoD");
        let copies: Vec<(u64, &String)> = lines
            .iter()
            .filter(up)
            .map(|line| (sum(std::slice::from_ref(line), line.split(' ').next().unwrap(), "bytes"), line))
            .collect();
        let large: Vec<_> = copies.iter().filter(|(bytes, _)| *bytes >= BATCH).collect();
        assert!(large.len() == 1 && large[0].1.contains(" pinned=1 "), "step {}: {copies:?}", step + 2);
        let bytes: u64 = copies.iter().map(|(bytes, _)| bytes).sum();
        assert!(bytes < BATCH + (16 << 10), "step {}: {bytes} bytes: {copies:?}", step + 2);
    }
}

/// Where no plan of cuDNN runs, exact convolutions are products of matrices; those in bf16 end the run with one line.
#[test]
fn without_plans_convolutions_are_products() {
    let Some(stub) = stub() else { return };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let output = bagssl(here, &[&TRAIN[..], &["cpu"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let no_plan = [("CUDA_STUB_FAIL", "cudnnBackendExecute:1+")];
    let run = stub.bagssl(here, &[&TRAIN[..], &["products", "--backend", "cuda-f32"]].concat(), &no_plan).succeeded();
    agree("products", &losses(here, "products"), &losses(here, "cpu"), [1e-4, 2e-2]);
    let steps = run.record.steps();
    let counts = counts(steps[steps.len() - 1]);
    let count =
        |of: &str| counts.iter().filter(|(name, _)| name.starts_with(of)).map(|(_, count)| count).sum::<usize>();
    // The 9 of the layers and the loss, and one for each of the 26 passes of convolutions.
    assert_eq!((count("cudnn "), count("cublasGemm")), (0, 9 + 26), "{counts:?}");
    let run = stub.bagssl(here, &[&TRAIN[..], &["none", "--backend", "cuda"]].concat(), &no_plan);
    says(&run, &["cuDNN", "no plan for Forward", "bf16", "CUDA_STUB_FAIL"]);
}

/// What Burn has compiled is kept in the user's cache, with the program's own settings: the next run compiles next to nothing.
/// What Burn says of a cache that is damaged is printed, by the check too.
#[test]
fn compiled_kernels_are_kept_and_damage_is_told() {
    let Some(stub) = stub() else { return };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let compiled = |run: &Run| run.record.lines().iter().filter(|line| line.starts_with("nvrtcCompile")).count();
    let check = ["doctor", "--check", "--only", "fused-pool"];
    let [first, second] = [(); 2].map(|()| stub.bagssl(here, &check, &[]).succeeded());
    let [before, after] = [&first, &second].map(compiled);
    assert!(before >= 4 && after <= before / 4, "{before} kernels compiled, then {after}");
    assert!(!second.stderr().contains("warning"), "{}", second.stderr());
    assert!(stub.sources().iter().any(|source| source.contains("extern \"C\" __global__")), "no source is kept");
    let kept = here.join("cache/bagssl/burn/nvrtc-13.0-sm90");
    let mut folders = vec![kept.clone()];
    let mut chunks = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "cbor") {
                chunks.push(path);
            }
        }
    }
    assert!(!chunks.is_empty(), "{}: expected kernels", kept.display());
    for chunk in &chunks {
        let kernels = fs::read(chunk).unwrap();
        fs::write(chunk, [&kernels[..], b"garbage"].concat()).unwrap();
    }
    let run = stub.bagssl(here, &check, &[]).succeeded();
    let warnings = run.stderr();
    assert!(warnings.lines().any(|line| line.starts_with("warning: Corrupted cache file")), "{warnings}");
}

/// Two GPUs share each batch through NCCL: they take the steps of one, also where work waits until somebody waits for it.
#[test]
fn two_gpus_take_the_steps_of_one() {
    let Some(stub) = stub() else { return };
    let folder = tempfile::tempdir().unwrap();
    let train = |out: &str, devices: &str, mode: &str| {
        let arguments = [&TRAIN[..], &[out, "--backend", "cuda-f32", "--devices", devices]].concat();
        let variables = [("CUDA_STUB_DEVICES", "2"), ("CUDA_STUB_MODE", mode)];
        stub.bagssl(folder.path(), &arguments, &variables).succeeded()
    };
    train("one", "1", "eager");
    let run = train("two", "2", "deferred");
    let [one, two] = ["one", "two"].map(|out| losses(folder.path(), out));
    assert!(one.len() >= 3 && one.len() == two.len(), "{one:?} {two:?}");
    for (step, (one, two)) in one.iter().zip(&two).enumerate() {
        let (apart, bound) = ((two - one).abs() / one.abs(), [1e-5, 2e-2][usize::from(step >= 3)]);
        assert!(apart < bound, "step {}: {apart:.1e}: {two} instead of {one}", step + 1);
    }
    let calls = |of: &str| run.record.lines().iter().filter(|line| line.starts_with(of)).count();
    let [first, second] = ["ncclAllReduce rank=0", "ncclAllReduce rank=1"].map(calls);
    assert!(first > one.len() && first == second, "{first} and {second} sums");
    // Each steps on a stream of its own.
    let steps = run.record.lines().iter().filter(|line| line.starts_with("cuLaunchKernel step_"));
    let streams: BTreeSet<&str> = steps.filter_map(|line| line.rsplit("stream=").next()).collect();
    assert_eq!(streams.len(), 2, "{streams:?}");
}
