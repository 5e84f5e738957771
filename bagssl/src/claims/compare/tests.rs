use super::*;
use bagssl_eval::Protocol;

fn model(method: &str, seed: u64, whole: [f64; 4], patches: [f64; 4]) -> ModelHits {
    let origin = crate::claims::wording::some_origin();
    let hits = [(("kNN", WHOLE), whole.to_vec()), (("kNN", PATCHES), patches.to_vec())].into_iter().collect();
    ModelHits {
        name: format!("{method}{seed}"),
        method: method.into(),
        seed: Some(seed),
        origin,
        patches: 9,
        images: [vec![0], vec![0, 1, 2, 3]],
        groups: vec![0, 0, 1, 1],
        hits,
    }
}

/// Two methods with two seeds each. The first has 50 and 25 % on whole images, and 75 and 50 % on
/// patches; both groups gain 25 points. The second has 50 and 100 % on whole images, and 0 and 0 %
/// on patches.
#[test]
fn methods_by_hand() {
    let all = [
        model("a", 0, [100.0, 0.0, 100.0, 0.0], [100.0, 100.0, 100.0, 0.0]),
        model("b", 0, [100.0, 0.0, 100.0, 0.0], [0.0; 4]),
        model("a", 1, [0.0, 0.0, 0.0, 100.0], [0.0, 0.0, 100.0, 100.0]),
        model("b", 1, [100.0; 4], [0.0; 4]),
    ];
    let methods = methods(&all, 1).unwrap();
    assert_eq!(methods.iter().map(|it| (it.name.as_str(), it.seeds)).collect::<Vec<_>>(), [("a", 2), ("b", 2)]);
    let of = |method: usize, view| methods[method].measures.iter().find(|it| it.view == view).unwrap();
    assert_eq!((of(0, WHOLE).mean, of(0, PATCHES).mean, of(1, WHOLE).mean), (37.5, 62.5, 75.0));
    assert!((of(0, WHOLE).deviation - 25.0 / 2f64.sqrt()).abs() < 1e-12);
    let gain = of(0, PATCHES).difference_from_whole.as_ref().unwrap();
    let group_interval = gain.group_interval.unwrap();
    assert_eq!((gain.mean, group_interval.low, group_interval.high), (25.0, 25.0, 25.0));
    let seeds = gain.seed_interval.unwrap();
    assert_eq!((seeds.low, seeds.high), (25.0, 25.0));
    let difference_from = of(1, WHOLE).difference_from_first.as_ref().unwrap();
    assert_eq!(difference_from.mean, 37.5);
    assert!(of(0, WHOLE).difference_from_first.is_none() && of(0, WHOLE).difference_from_whole.is_none());
}

/// On whole images, "a" has 75 and 25 % with seeds 3 and 4, and "b" has 100 and 25 %. Paired by
/// seed, "b" gains 25 and 0 points: 12.5 +- 12.706 * 12.5, in any order of the files. Pairs by file
/// order would give 75 and -50 for the second order.
#[test]
fn pairs_are_of_the_same_seed() {
    let of = |method: &str, seed, right: usize| {
        model(method, seed, std::array::from_fn(|image| if image < right { 100.0 } else { 0.0 }), [0.0; 4])
    };
    let seed_interval = |all: &[ModelHits]| {
        let methods = methods(all, 1).unwrap();
        let difference_from =
            methods[1].measures.iter().find(|it| it.view == WHOLE).unwrap().difference_from_first.as_ref().unwrap();
        (difference_from.mean, difference_from.seed_interval)
    };
    let sorted = seed_interval(&[of("a", 3, 3), of("a", 4, 1), of("b", 3, 4), of("b", 4, 1)]);
    let turned = seed_interval(&[of("a", 4, 1), of("a", 3, 3), of("b", 3, 4), of("b", 4, 1)]);
    assert_eq!(sorted, turned);
    let (mean, interval) = (sorted.0, sorted.1.unwrap());
    assert_eq!((mean, interval.mean), (12.5, 12.5));
    let half = 12.706_2 * 12.5;
    assert!((interval.low - 12.5 + half).abs() < 1e-3 && (interval.high - 12.5 - half).abs() < 1e-3, "{interval:?}");

    // Other seeds, a duplicate seed, and an unknown seed: the same number of checkpoints, but no
    // pairs.
    for seeds in [[3, 5], [3, 3]] {
        let all = [of("a", 3, 3), of("a", 4, 1), of("b", seeds[0], 4), of("b", seeds[1], 1)];
        assert_eq!(seed_interval(&all), (12.5, None), "{seeds:?}");
    }
    let unknown = |method, right| ModelHits { seed: None, ..of(method, 0, right) };
    assert_eq!(seed_interval(&[unknown("a", 3), unknown("a", 1), unknown("b", 4), unknown("b", 1)]), (12.5, None));
}

#[test]
fn imported_model_keeps_its_name_and_is_no_seed() {
    let of = |method: &str, seed| ModelHits { seed, ..model(method, 0, [0.0; 4], [0.0; 4]) };
    let ours = |seed| of("simclr", Some(seed));
    let all = mark_imported(vec![ours(0), of("simclr", None), of("resnet18", None), ours(1)]);
    let methods = methods(&all, 0).unwrap();
    let seeds: Vec<_> = methods.iter().map(|it| (it.name.as_str(), it.seeds)).collect();
    assert_eq!(seeds, [("simclr", 2), ("simclr (imported)", 1), ("resnet18", 1)]);
}

#[test]
fn a_model_of_other_images_is_named() {
    let mut all = [0, 1].map(|seed| model("a", seed, [0.0; 4], [0.0; 4]));
    same_images(&all).unwrap();
    // The same number of images, with the same groups.
    all[1].images[1] = vec![0, 1, 2, 4];
    let error = same_images(&all).unwrap_err().to_string();
    let words = "(1 training and 4 test images)";
    assert_eq!(error, format!("a1: expected the images of a0 {words}, got others {words}"));
    let none = Compare::default().report(vec![], &EvalOptions::default());
    assert!(matches!(none, Err(Error::Setting { name: "models", .. })));
}

/// Stored results are read back unchanged. For each method, the page shows the number of averaged
/// patches and the origins.
#[test]
fn report_survives_json_and_renders() {
    let all = [
        model("a", 0, [100.0, 0.0, 0.0, 0.0], [100.0; 4]),
        ModelHits { patches: 25, ..model("b", 0, [0.0; 4], [0.0, 0.0, 0.0, 100.0]) },
        ModelHits { patches: 16, ..model("b", 1, [0.0; 4], [0.0; 4]) },
    ];
    let report = Compare::default().report(all.to_vec(), &EvalOptions { seed: 1, ..EvalOptions::default() }).unwrap();
    let stored: CompareReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    let protocol = Protocol::default();
    let page = stored.page(&protocol);
    assert_eq!(page, report.page(&protocol));
    assert!(page.lead[0].starts_with("a: kNN 25.0 % on whole images, 100.0 % averaged over 9 patches: +75.0 points"));
    assert!(page.origins[2].starts_with("b: protocol p"));
    assert!(page.lead[1].contains("averaged over 16 or 25 patches: +12.5 points"), "{}", page.lead[1]);
    assert_eq!(page.blocks[0].tables[0].rows[0][..3], ["a", "kNN", "mean of 9 patches"]);
    assert_eq!(page.blocks[0].tables[1].rows[0][..3], ["b", "kNN", "mean of 16 or 25 patches"]);
    assert_eq!(page.blocks[0].tables[1].rows[1][..3], ["b", "kNN", WHOLE]);
}
