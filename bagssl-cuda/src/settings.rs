//! How Burn's CUDA backend is set, where the user has not set it.

use std::path::Path;

use cubecl::config::autotune::AutotuneLevel;
use cubecl::config::cache::CacheConfig;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

use crate::gpu::Gpu;
use crate::ops::convolution::plan_file::cache_folder;

/// Sets it, if nobody has: neither a file `cubecl.toml` or `burn.toml` here or above, nor the program. `compiler` is NVRTC's version.
///
/// Kernels that are alike are tried in less variants, since the operations that decide the speed are not Burn's; what was
/// compiled and tried is kept in the user's cache.
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

/// The settings, with a folder for what is kept. Burn knows compiled kernels by their source alone, so that they are kept for one
/// compiler and one kind of GPU, and not at all where there are several kinds.
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

/// Whether a file sets Burn's backend in this folder or one above it.
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
