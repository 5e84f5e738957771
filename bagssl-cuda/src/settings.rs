//! Default settings of Burn's CUDA backend.

use std::path::Path;

use cubecl::config::autotune::AutotuneLevel;
use cubecl::config::cache::CacheConfig;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

use crate::gpu::Gpu;
use crate::ops::convolution::plan_file::cache_folder;

/// Applies this crate's settings, unless the program or a file `cubecl.toml` or `burn.toml` in this
/// folder or a parent has set the backend. `compiler` is NVRTC's version.
///
/// Autotuning tries fewer variants of similar kernels, since the operations that dominate the run
/// time are not Burn's. Compiled kernels and autotuning results are stored in the user's cache
/// folder.
pub(super) fn apply(compiler: &str, gpus: &[Gpu]) {
    let here = std::env::current_dir().unwrap_or_default();
    if is_set_by_file(&here) {
        return;
    }
    let settings = settings(cache_folder().as_deref(), compiler, gpus).override_from_env();
    let mut set = CubeClRuntimeConfig::storage().lock();
    if set.is_none() {
        *set = Some(settings.into());
    }
}

/// Returns the settings for a cache folder. Burn identifies compiled kernels by their source alone.
/// So the cache is specific to one compiler version and compute capability, and disabled if the
/// GPUs differ in their capability.
fn settings(cache: Option<&Path>, compiler: &str, gpus: &[Gpu]) -> CubeClRuntimeConfig {
    let mut settings = CubeClRuntimeConfig::default();
    settings.autotune.level = AutotuneLevel::Minimal;
    if let Some(cache) = cache {
        settings.autotune.cache = CacheConfig::File(cache.join("burn"));
        if let Some((first, others)) = gpus.split_first()
            && others.iter().all(|gpu| gpu.capability == first.capability)
        {
            let (major, minor) = first.capability;
            let folder = format!("nvrtc-{compiler}-sm{major}{minor}");
            settings.compilation.cache = Some(CacheConfig::File(cache.join("burn").join(folder)));
        }
    }
    settings
}

/// Whether a file in this folder or a parent configures Burn's backend.
fn is_set_by_file(folder: &Path) -> bool {
    let sections = CubeClRuntimeConfig::section_file_names();
    folder.ancestors().any(|folder| {
        let has_section = |(name, section): &(&str, &str)| {
            let table =
                std::fs::read_to_string(folder.join(name)).ok().and_then(|text| text.parse::<toml::Table>().ok());
            table.is_some_and(|table| table.contains_key(*section))
        };
        CubeClRuntimeConfig::file_names().iter().any(|name| folder.join(name).is_file())
            || sections.iter().any(has_section)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(capability: (i32, i32)) -> Gpu {
        Gpu { name: "A".into(), memory: 1 << 34, capability }
    }

    #[test]
    fn kernels_are_kept_for_one_compiler_and_one_kind_of_gpu() {
        let kept = |gpus: &[Gpu]| {
            let settings = settings(Some(Path::new("/cache")), "13.0", gpus);
            assert!(matches!(settings.autotune.level, AutotuneLevel::Minimal));
            assert_eq!(settings.autotune.cache.root(), Path::new("/cache/burn"));
            settings.compilation.cache.map(|cache| cache.root())
        };
        let folder = Some("/cache/burn/nvrtc-13.0-sm90".into());
        assert_eq!(kept(&[gpu((9, 0))]), folder);
        assert_eq!(kept(&[gpu((9, 0)), gpu((9, 0))]), folder);
        assert_eq!(kept(&[gpu((9, 0)), gpu((8, 0))]), None);
        assert_eq!(kept(&[]), None);
        assert!(settings(None, "13.0", &[gpu((9, 0))]).compilation.cache.is_none());
    }

    #[test]
    fn a_file_of_the_users_is_seen_from_below() {
        for (name, text, set) in [
            ("cubecl.toml", "", true),
            ("burn.toml", "[cubecl.autotune]\nlevel = \"full\"\n", true),
            ("burn.toml", "[fusion]\n", false),
            ("other.toml", "[cubecl]\n", false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let below = folder.path().join("a/b");
            std::fs::create_dir_all(&below).unwrap();
            std::fs::write(folder.path().join(name), text).unwrap();
            assert_eq!(is_set_by_file(&below), set, "{name}: {text}");
        }
    }
}
