//! Copies callers' maps to the border and channel layout that kernels need.
#![allow(unsafe_code, reason = "several threads copy disjoint rows")]

use std::prelude::v1::*;

use super::feature_map::{Buffer, CHANNELS, Form, Map};
use crate::cpu::exec::threads::Threads;
use crate::cpu::layout::view::{Shape, View};

/// Memory whose parts are written by different jobs.
pub(crate) struct Shared(pub(crate) *mut f32);

// SAFETY: all uses write disjoint parts, and the memory outlives the jobs.
unsafe impl Sync for Shared {}

/// Returns the number of stored channels of a map. Few channels are not padded, since a stem reads
/// the kernel's rows as contiguous runs.
pub(crate) fn padded_channels(channels: usize) -> usize {
    if channels < CHANNELS { channels } else { channels.next_multiple_of(CHANNELS) }
}

/// A map with a border. Copies the map unless it needs neither border nor padding.
pub(crate) struct Bordered<'a> {
    pub(crate) form: Form,
    memory: Memory<'a>,
}

enum Memory<'a> {
    Own(Buffer),
    Lent(&'a [f32]),
}

impl<'a> Bordered<'a> {
    pub(crate) fn new(threads: &dyn Threads, view: View<'a>, before: usize, after: [usize; 2]) -> Self {
        let [images, height, width, channels] = view.shape;
        let form = Form::new([height, width], channels.next_multiple_of(CHANNELS));
        let form = if before > 0 || after[0] > 0 { Form { channels: padded_channels(channels), ..form } } else { form };
        let form = form.with_border(before, after);
        if form.extent == form.size && form.channels == channels {
            return Bordered { form, memory: Memory::Lent(view.values) };
        }
        let mut memory = Buffer::new(images * form.len());
        let map = form.at(memory.as_mut_ptr());
        threads.each(images * height, &|job, _| {
            let (image, y) = (job / height, job % height);
            let row = &view.values[job * width * channels..][..width * channels];
            if channels == map.channels {
                // SAFETY: each job writes its own row.
                unsafe { copy(row, map.at(image, y as isize, 0)) };
                return;
            }
            for (x, pixel) in row.chunks_exact(channels).enumerate() {
                // SAFETY: as above.
                unsafe { copy(pixel, map.at(image, y as isize, x as isize)) };
            }
        });
        Bordered { form, memory: Memory::Own(memory) }
    }

    /// Returns a map for reading.
    pub(crate) fn map(&self) -> Map {
        let start = match &self.memory {
            Memory::Own(buffer) => buffer.as_ptr(),
            Memory::Lent(values) => values.as_ptr(),
        };
        self.form.at(start.cast_mut())
    }
}

/// # Safety
/// `to` must have room for the values of `from`, and no other thread may access this memory.
unsafe fn copy(from: &[f32], to: *mut f32) {
    unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) }
}

/// An output map. It is written directly into the returned memory if its channels need no padding.
pub(crate) struct Output {
    shape: Shape,
    form: Form,
    values: Vec<f32>,
    padded: Option<Buffer>,
}

impl Output {
    pub(crate) fn new(shape: Shape) -> Self {
        let [images, height, width, channels] = shape;
        let form = Form::new([height, width], channels.next_multiple_of(CHANNELS));
        let fits = form.channels == channels;
        Output {
            shape,
            form,
            values: vec![0.0; shape.iter().product()],
            padded: (!fits).then(|| Buffer::new(images * form.len())),
        }
    }

    pub(crate) fn map(&mut self) -> Map {
        let start = match &mut self.padded {
            Some(padded) => padded.as_mut_ptr(),
            None => self.values.as_mut_ptr(),
        };
        self.form.at(start)
    }

    pub(crate) fn into_values(mut self, threads: &dyn Threads) -> Vec<f32> {
        let channels = self.shape[3];
        let Some(padded) = &mut self.padded else {
            return self.values;
        };
        let pixels = self.values.len() / channels;
        let (from, to) = (Shared(padded.as_mut_ptr()), Shared(self.values.as_mut_ptr()));
        let stored = self.form.channels;
        threads.each(pixels.div_ceil(1024), &|job, _| {
            let (from, to) = (&from, &to);
            for pixel in job * 1024..pixels.min((job + 1) * 1024) {
                // SAFETY: each job has its own pixels.
                unsafe {
                    core::ptr::copy_nonoverlapping(from.0.add(pixel * stored), to.0.add(pixel * channels), channels);
                };
            }
        });
        self.values
    }
}
