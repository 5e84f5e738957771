//! What each step of making a training patch takes: `cargo bench -p bagssl-data`.

use std::hint::black_box;
use std::sync::Arc;

use bagssl_core::normalize::Normalization;
use bagssl_core::patch::{Crop, Filter, ImageSize};
use bagssl_core::random::{Address, Purpose};
use bagssl_data::{Augment, Blur, Dataset, Image, Jitter, Resampler, Solarise, Split, ToTensor};
use criterion::{Criterion, criterion_group, criterion_main};

/// A photograph's tile of 64x64.
fn tile() -> Image {
    Dataset::embedded(Split::Train).unwrap().decode(100).unwrap().into_image()
}

fn resample(criterion: &mut Criterion) {
    let image = tile();
    for (name, filter) in [("bilinear", Filter::Bilinear), ("bicubic", Filter::Bicubic)] {
        for (from, to) in [(16, 32), (64, 32), (40, 32), (32, 32)] {
            let (mut resampler, crop) = (Resampler::new(filter), Crop { top: 0, left: 0, height: from, width: from });
            let mut patch = Image::new(ImageSize { height: to, width: to }, vec![0; (to * to * 3) as usize]);
            criterion.bench_function(&format!("resample/{name}/{from} to {to}"), |bencher| {
                bencher.iter(|| resampler.fill(black_box(&image), crop, &mut patch));
            });
        }
    }
}

fn augment(criterion: &mut Criterion) {
    let patch = Resampler::new(Filter::Bilinear).patch(&tile(), Crop { top: 8, left: 16, height: 32, width: 32 }, 32);
    let jitter = Jitter { brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0, probability: 1.0 };
    let none = Augment::default();
    let changes = [
        ("flip", Augment { flip: 1.0, ..none }),
        ("brightness", Augment { jitter: Some(Jitter { brightness: 0.4, ..jitter }), ..none }),
        ("contrast", Augment { jitter: Some(Jitter { contrast: 0.4, ..jitter }), ..none }),
        ("saturation", Augment { jitter: Some(Jitter { saturation: 0.4, ..jitter }), ..none }),
        ("hue", Augment { jitter: Some(Jitter { hue: 0.2, ..jitter }), ..none }),
        ("grey", Augment { grey: 1.0, ..none }),
        ("blur", Augment { blur: Some(Blur { probability: 1.0, sigma: (0.1, 2.0) }), ..none }),
        ("solarise", Augment { solarise: Some(Solarise { probability: 1.0, threshold: 128 }), ..none }),
    ];
    for (name, augment) in changes {
        let augment = augment.check().unwrap();
        let mut number = 0;
        criterion.bench_function(&format!("augment/{name}"), |bencher| {
            bencher.iter(|| {
                let mut patch = patch.clone();
                number += 1;
                augment
                    .apply(&mut patch, &mut Address { patch: number, ..Address::default() }.stream(Purpose::Augment));
                patch
            });
        });
    }
}

fn levels(criterion: &mut Criterion) {
    let (levels, image) = (ToTensor::new(Normalization::HALF), tile());
    criterion.bench_function("levels/64x64", |bencher| {
        let mut values = Vec::with_capacity(64 * 64 * 3);
        bencher.iter(|| {
            values.clear();
            levels.append(black_box(&image), &mut values);
        });
    });
}

fn decode(criterion: &mut Criterion) {
    let dataset = Arc::new(Dataset::embedded(Split::Train).unwrap());
    criterion.bench_function("decode/JPEG 64x64", |bencher| bencher.iter(|| dataset.decode(black_box(7)).unwrap()));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(1)).warm_up_time(std::time::Duration::from_millis(300));
    targets = resample, augment, levels, decode
}
criterion_main!(benches);
