//! Groups of images that belong together, and halves that divide no group.
//!
//! Images of one burst, place, patient or person are no independent witnesses: if some are learned from and others tested on,
//! a test says too much. So whole groups go to one half.

use std::collections::HashMap;
use std::hash::Hash;

use bagssl_core::random::{Address, Purpose};
use rayon::prelude::*;

use crate::curate::duplicates::{Print, each_near};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::loading::skip::{OnBadImage, Skipped};
use crate::split::Split;

/// The number of each image's group, for images with these keys: counted in the order in which keys come first.
pub fn by_key<K: Eq + Hash>(keys: impl IntoIterator<Item = K>) -> Vec<u32> {
    let mut numbers: HashMap<K, u32> = HashMap::new();
    let number = |key| {
        let next = numbers.len() as u32;
        *numbers.entry(key).or_insert(next)
    };
    keys.into_iter().map(number).collect()
}

/// The groups of images that are alike: each is a duplicate, exact or near (see [`Duplicates`](crate::curate::Duplicates)), of another one of its
/// group. An image that is left out has no group. `progress` is called once for each image, in no order.
///
/// # Errors
/// That of the first image that cannot be decoded, if bad ones are not to be skipped.
pub fn by_duplicates(
    dataset: &Dataset,
    on_bad_image: OnBadImage,
    progress: &(dyn Fn() + Sync),
) -> Result<(Vec<Option<u32>>, Vec<Skipped>)> {
    let look = |image: usize| {
        let print = on_bad_image.judge(dataset.decode(image).map(|image| Print::new(&image)));
        progress();
        print
    };
    let looked: Vec<_> = (0..dataset.len()).into_par_iter().map(look).collect();
    let (mut prints, mut skipped) = (Vec::with_capacity(dataset.len()), Vec::new());
    for (image, print) in looked.into_iter().enumerate() {
        let print = print?;
        if let Err(reason) = &print {
            let name = dataset.name(image).into();
            skipped.push(Skipped { image: image as u32, name, reason: reason.clone(), times: 1 });
        }
        prints.push(print.ok());
    }
    Ok((clusters(&prints), skipped))
}

/// Joins what is alike, and what is alike to that.
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
    each_near(&hashes, &mut |one, other| {
        join(&mut parents, one, other);
        true
    });
    let roots: Vec<Option<usize>> =
        (0..prints.len()).map(|image| prints[image].map(|_| root(&mut parents, image))).collect();
    let mut numbers = by_key(roots.iter().flatten()).into_iter();
    roots.iter().map(|root| root.and_then(|_| numbers.next())).collect()
}

/// The first of the images that one is joined with; the way there gets shorter.
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

/// The half of each image, given its group (numbered without gaps, as by [`by_key`]) and its class: about `share` of them are held out, and of each class too as far as its groups allow. Groups stay
/// whole. The same seed gives the same halves. Both have an image.
///
/// Groups come in random order, and one is held out if that brings the numbers of held-out images nearer to what they should
/// be: the sum over classes of the squared difference, over the class's images. Classes of one group count as one class.
///
/// # Errors
/// [`Error::Setting`] if the share is not between 0 and 1, or there are fewer than two groups.
///
/// # Panics
/// If there are not as many classes as groups.
pub fn divide(groups: &[u32], classes: &[u32], share: f64, seed: u64) -> Result<Vec<Split>> {
    assert_eq!(groups.len(), classes.len(), "a group and a class for each image");
    let refuse = |name, expected: &str, got: String| Err(Error::Setting { name, expected: expected.into(), got });
    if !(share > 0.0 && share < 1.0) {
        return refuse("validation", "a share between 0 and 1", share.to_string());
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
    // One half without a group gets the smallest one.
    if held_out.iter().all(|held| *held == held_out[0]) {
        let smallest = order.iter().copied().min_by_key(|group| members[*group].len()).expect("there are two");
        held_out[smallest] = !held_out[smallest];
    }
    let half = |group: &u32| if held_out[*group as usize] { Split::Validation } else { Split::Train };
    Ok(groups.iter().map(half).collect())
}

/// The images of each group.
fn members(groups: &[u32]) -> Vec<Vec<usize>> {
    let count = groups.iter().max().map_or(0, |most| *most as usize + 1);
    let mut members = vec![Vec::new(); count];
    groups.iter().enumerate().for_each(|(image, group)| members[*group as usize].push(image));
    members
}

/// What is divided evenly: each image's class, or, where all of the class is one group, `u32::MAX`.
fn strata(groups: &[u32], classes: &[u32]) -> Vec<u32> {
    let mut only: HashMap<u32, Option<u32>> = HashMap::new();
    for (group, class) in groups.iter().zip(classes) {
        let seen = only.entry(*class).or_insert(Some(*group));
        *seen = seen.filter(|other| other == group);
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
    fn keys_are_counted_as_they_come() {
        assert_eq!(by_key(["b", "a", "b", "c"]), [0, 1, 0, 2]);
    }

    /// Three hashes in a row, each two bits from the next: the ends are four apart, and yet in one group.
    #[test]
    fn alike_to_what_is_alike() {
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
            let halves = divide(&groups, &classes, 0.2, seed).unwrap();
            for class in 0..2 {
                let held = (0..80).filter(|&i| classes[i] == class && halves[i] == Split::Validation).count();
                assert_eq!(held, 8, "seed {seed}");
            }
        }
        assert_eq!(divide(&groups, &classes, 0.2, 1).unwrap(), divide(&groups, &classes, 0.2, 1).unwrap());
        assert_ne!(divide(&groups, &classes, 0.2, 1).unwrap(), divide(&groups, &classes, 0.2, 2).unwrap());
        // Each class one group: whole classes are held out.
        let halves = divide(&classes, &classes, 0.5, 0).unwrap();
        assert_eq!(halves.iter().filter(|half| **half == Split::Validation).count(), 40);
    }

    #[test]
    fn what_cannot_be_divided_is_refused() {
        let error = |groups: &[u32], share| divide(groups, &vec![0; groups.len()], share, 0).unwrap_err().to_string();
        assert_eq!(error(&[0, 0, 0], 0.2), "groups: expected at least two, got 1 for 3 images");
        for share in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(error(&[0, 1], share).starts_with("validation: expected a share between 0 and 1, got "));
        }
    }

    proptest! {
        #[test]
        fn no_group_is_on_both_sides(images in prop::collection::vec((0u32..12, 0u32..4), 2..60), share in 0.01f64..0.99, seed: u64) {
            let groups = by_key(images.iter().map(|(group, _)| *group));
            let classes: Vec<u32> = images.iter().map(|(_, class)| *class).collect();
            prop_assume!(groups.iter().any(|group| *group > 0));
            let halves = divide(&groups, &classes, share, seed).unwrap();
            for (one, half) in groups.iter().zip(&halves) {
                prop_assert!(groups.iter().zip(&halves).all(|(other, of_other)| one != other || half == of_other));
            }
            for half in Split::ALL {
                prop_assert!(halves.contains(&half));
            }
        }

        /// Many small groups of one class: the share is met to half a group, whatever it is.
        #[test]
        fn the_share_is_met(share in 0.05f64..0.95, seed: u64) {
            let groups: Vec<u32> = (0..300).map(|image| image / 3).collect();
            let halves = divide(&groups, &[0; 300], share, seed).unwrap();
            let held = halves.iter().filter(|half| **half == Split::Validation).count() as f64;
            prop_assert!((held - 300.0 * share).abs() <= 1.5 + 1e-9, "{} of 300 for {}", held, share);
        }
    }
}
