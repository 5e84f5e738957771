//! Groups of related images, and train/validation splits that do not divide any group.
//!
//! Images of one burst, place, patient or person are not independent. If some of them are training
//! images and others are validation images, the evaluation is too optimistic. So each group is
//! assigned to one split as a whole.

use std::collections::HashMap;
use std::hash::Hash;

use bagssl_core::random::{Address, Purpose};
use rayon::prelude::*;

use crate::curate::duplicates::{Print, visit_near_pairs};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::loading::skip::{OnBadImage, Skipped};
use crate::split::Split;

/// Returns the group number of each image, given a key per image. Groups are numbered in the order
/// of their first image.
pub fn group_by_key<K: Eq + Hash>(keys: impl IntoIterator<Item = K>) -> Vec<u32> {
    let mut numbers: HashMap<K, u32> = HashMap::new();
    let number = |key| {
        let next = numbers.len() as u32;
        *numbers.entry(key).or_insert(next)
    };
    keys.into_iter().map(number).collect()
}

/// Groups images that are exact or near [`Duplicates`](crate::curate::Duplicates) of another image
/// in the group. Skipped images have no group. `progress` is called once per image, in no
/// particular order.
///
/// # Errors
/// The error of the first image that cannot be decoded, unless unusable images are skipped.
pub fn group_duplicates(
    dataset: &Dataset,
    on_bad_image: OnBadImage,
    progress: &(dyn Fn() + Sync),
) -> Result<(Vec<Option<u32>>, Vec<Skipped>)> {
    let look = |image: usize| {
        let print = on_bad_image.skip_or_fail(dataset.decode(image).map(|image| Print::new(&image)));
        progress();
        print
    };
    let analyzed: Vec<_> = (0..dataset.len()).into_par_iter().map(look).collect();
    let (mut prints, mut skipped) = (Vec::with_capacity(dataset.len()), Vec::new());
    for (image, print) in analyzed.into_iter().enumerate() {
        let print = print?;
        if let Err(reason) = &print {
            let name = dataset.name(image).into();
            skipped.push(Skipped { image: image as u32, name, reason: reason.clone(), times: 1 });
        }
        prints.push(print.ok());
    }
    Ok((clusters(&prints), skipped))
}

/// Joins similar images transitively.
fn clusters(prints: &[Option<Print>]) -> Vec<Option<u32>> {
    let mut parents: Vec<usize> = (0..prints.len()).collect();
    let mut of_pixels: HashMap<u128, usize> = HashMap::new();
    let mut of_hash: HashMap<u64, usize> = HashMap::new();
    for (image, print) in prints.iter().enumerate() {
        let Some(print) = print else { continue };
        join(&mut parents, *of_pixels.entry(print.exact).or_insert(image), image);
        if let Some(hash) = print.near {
            join(&mut parents, *of_hash.entry(hash).or_insert(image), image);
        }
    }
    let mut hashes: Vec<(usize, u64)> = of_hash.into_iter().map(|(hash, image)| (image, hash)).collect();
    hashes.sort_unstable();
    visit_near_pairs(&hashes, &mut |one, other| {
        join(&mut parents, one, other);
        true
    });
    let roots: Vec<Option<usize>> =
        (0..prints.len()).map(|image| prints[image].map(|_| root(&mut parents, image))).collect();
    let mut numbers = group_by_key(roots.iter().flatten()).into_iter();
    roots.iter().map(|root| root.and_then(|_| numbers.next())).collect()
}

/// Returns the root of an image's group, and shortens the path to it.
fn root(parents: &mut [usize], mut image: usize) -> usize {
    while parents[image] != image {
        parents[image] = parents[parents[image]];
        image = parents[image];
    }
    image
}

fn join(parents: &mut [usize], one: usize, other: usize) {
    let (one, other) = (root(parents, one), root(parents, other));
    parents[one.max(other)] = one.min(other);
}

/// Assigns each image to a split, given its group (numbered without gaps, as by [`group_by_key`]) and its
/// class. About `share` of the images are held out, and about `share` of each class, as far as the
/// groups allow. No group is divided. Both splits have at least one image. The same seed gives the
/// same splits.
///
/// Groups are visited in random order. A group is held out if that brings the number of held-out
/// images closer to the target. The distance to the target is the sum over classes of the squared
/// difference, divided by the number of images in the class. All classes that consist of a single
/// group are treated as one class.
///
/// # Errors
/// [`Error::Setting`] if `share` is not between 0 and 1, or there are fewer than two groups.
///
/// # Panics
/// If `groups` and `classes` have different lengths.
pub fn split_groups(groups: &[u32], classes: &[u32], share: f64, seed: u64) -> Result<Vec<Split>> {
    assert_eq!(groups.len(), classes.len(), "expected one group and one class per image");
    let refuse = |name, expected: &str, got: String| Err(Error::Setting { name, expected: expected.into(), got });
    if !(share > 0.0 && share < 1.0) {
        return refuse("validation", "a fraction between 0 and 1", share.to_string());
    }
    let members = members(groups);
    if members.len() < 2 {
        return refuse("groups", "at least two", format!("{} for {} images", members.len(), groups.len()));
    }
    let strata = strata(groups, classes);
    let mut missing: HashMap<u32, f64> = HashMap::new();
    let mut sizes: HashMap<u32, f64> = HashMap::new();
    for stratum in &strata {
        *missing.entry(*stratum).or_default() += share;
        *sizes.entry(*stratum).or_default() += 1.0;
    }
    let mut order: Vec<usize> = (0..members.len()).collect();
    Address { seed, patch: u32::MAX - 4, ..Address::default() }.stream(Purpose::Evaluation).shuffle(&mut order);
    let mut held_out = vec![false; members.len()];
    for &group in &order {
        let mut counts: Vec<(u32, f64)> = Vec::new();
        for image in &members[group] {
            match counts.iter_mut().find(|(stratum, _)| *stratum == strata[*image]) {
                Some((_, count)) => *count += 1.0,
                None => counts.push((strata[*image], 1.0)),
            }
        }
        let gain = |(stratum, count): &(u32, f64)| count * (2.0 * missing[stratum] - count) / sizes[stratum];
        if counts.iter().map(gain).sum::<f64>() > 0.0 {
            held_out[group] = true;
            counts.iter().for_each(|(stratum, count)| *missing.get_mut(stratum).expect("it is counted") -= count);
        }
    }
    // If a split has no group, move the smallest group to it.
    if held_out.iter().all(|held| *held == held_out[0]) {
        let smallest = order.iter().copied().min_by_key(|group| members[*group].len()).expect("there are two");
        held_out[smallest] = !held_out[smallest];
    }
    let split = |group: &u32| if held_out[*group as usize] { Split::Validation } else { Split::Train };
    Ok(groups.iter().map(split).collect())
}

/// Returns the images of each group.
fn members(groups: &[u32]) -> Vec<Vec<usize>> {
    let count = groups.iter().max().map_or(0, |most| *most as usize + 1);
    let mut members = vec![Vec::new(); count];
    groups.iter().enumerate().for_each(|(image, group)| members[*group as usize].push(image));
    members
}

/// Returns the stratum of each image: its class, or `u32::MAX` if all images of the class are in
/// one group.
fn strata(groups: &[u32], classes: &[u32]) -> Vec<u32> {
    let mut only: HashMap<u32, Option<u32>> = HashMap::new();
    for (group, class) in groups.iter().zip(classes) {
        let visited = only.entry(*class).or_insert(Some(*group));
        *visited = visited.filter(|other| other == group);
    }
    classes.iter().map(|class| if only[class].is_some() { u32::MAX } else { *class }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;
    use bagssl_core::patch::ImageSize;
    use proptest::prelude::*;

    #[test]
    fn groups_are_numbered_by_first_image() {
        assert_eq!(group_by_key(["b", "a", "b", "c"]), [0, 1, 0, 2]);
    }

    /// A chain of three hashes, each two bits from the next. The ends are four bits apart, but in
    /// one group.
    #[test]
    fn duplicates_are_grouped_transitively() {
        let print = |exact, near| Some(Print { exact, near });
        let base = 0xff00_ff00_ff00_ff00;
        let prints = [
            print(1, Some(base)),
            print(2, None),
            print(3, Some(base ^ 0b1111)),
            None,
            print(4, Some(base ^ 0b0011)),
            print(2, None),
            print(5, None),
            print(6, Some(!base)),
        ];
        let expected = [Some(0), Some(1), Some(0), None, Some(0), Some(1), Some(2), Some(3)];
        assert_eq!(clusters(&prints), expected);
        let flat = Print::new(&Image::black(ImageSize { height: 3, width: 5 }));
        assert_eq!(clusters(&[Some(flat), Some(flat)]), [Some(0), Some(0)], "the same pixels, if of one color");
    }

    #[test]
    fn classes_are_divided_evenly() {
        // Two classes, 10 groups of 4 images each.
        let groups: Vec<u32> = (0..80).map(|image| image / 4).collect();
        let classes: Vec<u32> = (0..80).map(|image| image / 40).collect();
        for seed in 0..20 {
            let splits = split_groups(&groups, &classes, 0.2, seed).unwrap();
            for class in 0..2 {
                let held = (0..80).filter(|&i| classes[i] == class && splits[i] == Split::Validation).count();
                assert_eq!(held, 8, "seed {seed}");
            }
        }
        assert_eq!(split_groups(&groups, &classes, 0.2, 1).unwrap(), split_groups(&groups, &classes, 0.2, 1).unwrap());
        assert_ne!(split_groups(&groups, &classes, 0.2, 1).unwrap(), split_groups(&groups, &classes, 0.2, 2).unwrap());
        // Each class is one group: entire classes are held out.
        let splits = split_groups(&classes, &classes, 0.5, 0).unwrap();
        assert_eq!(splits.iter().filter(|split| **split == Split::Validation).count(), 40);
    }

    #[test]
    fn split_groups_refuses_indivisible_data() {
        let error =
            |groups: &[u32], share| split_groups(groups, &vec![0; groups.len()], share, 0).unwrap_err().to_string();
        assert_eq!(error(&[0, 0, 0], 0.2), "groups: expected at least two, got 1 for 3 images");
        for share in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(error(&[0, 1], share).starts_with("validation: expected a fraction between 0 and 1, got "));
        }
    }

    proptest! {
        #[test]
        fn no_group_is_on_both_sides(images in prop::collection::vec((0u32..12, 0u32..4), 2..60), share in 0.01f64..0.99, seed: u64) {
            let groups = group_by_key(images.iter().map(|(group, _)| *group));
            let classes: Vec<u32> = images.iter().map(|(_, class)| *class).collect();
            prop_assume!(groups.iter().any(|group| *group > 0));
            let splits = split_groups(&groups, &classes, share, seed).unwrap();
            for (one, split) in groups.iter().zip(&splits) {
                prop_assert!(groups.iter().zip(&splits).all(|(other, of_other)| one != other || split == of_other));
            }
            for split in Split::ALL {
                prop_assert!(splits.contains(&split));
            }
        }

        /// With many small groups of one class, the share is met to within half a group.
        #[test]
        fn the_share_is_met(share in 0.05f64..0.95, seed: u64) {
            let groups: Vec<u32> = (0..300).map(|image| image / 3).collect();
            let splits = split_groups(&groups, &[0; 300], share, seed).unwrap();
            let held = splits.iter().filter(|split| **split == Split::Validation).count() as f64;
            prop_assert!((held - 300.0 * share).abs() <= 1.5 + 1e-9, "{} of 300 for {}", held, share);
        }
    }
}
