//! The named architectures: residual networks as encoders, multi-layer perceptrons as projectors.
//!
//! # Source
//! He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*, CVPR 2016. Parameter names
//! and the position of the stride (in the 3x3 convolution) follow torchvision.

use std::prelude::v1::*;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::plan::{Kind, Layer, Op, Plan, Window};

/// A named encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Architecture {
    /// ResNet-18 with ImageNet's stem: 7x7 with stride 2, then 3x3 max pooling with stride 2.
    /// Embedding 512.
    ResNet18,
    /// ResNet-18 with a stem for small images: 3x3 with stride 1. Embedding 512.
    ResNet18Cifar,
    /// ResNet-18 with the small stem of solo-learn, whose convolution pads by 2. Embedding 512.
    ResNet18CifarPad2,
    /// ResNet-34 with ImageNet's stem. Embedding 512.
    ResNet34,
    /// ResNet-34 with the small stem. Embedding 512.
    ResNet34Cifar,
    /// ResNet-34 with the small stem of solo-learn, whose convolution pads by 2. Embedding 512.
    ResNet34CifarPad2,
    /// ResNet-50 with ImageNet's stem. Embedding 2048.
    ResNet50,
    /// ResNet-50 with the small stem. Embedding 2048.
    ResNet50Cifar,
    /// ResNet-50 with the small stem of solo-learn, whose convolution pads by 2. Embedding 2048.
    ResNet50CifarPad2,
    /// A network for runs on a CPU, specific to this project: small stem, one basic block each of
    /// 16, 32 and 64 channels, about 3 million multiplications for a 16x16 patch. Embedding 64.
    ResNetSmall,
    /// BagNet-9: bottlenecks without padding, with receptive fields of 9x9 pixels, 8 pixels apart.
    /// Embedding 2048.
    BagNet9,
    /// BagNet-17: receptive fields of 17x17 pixels, 8 pixels apart. Embedding 2048.
    BagNet17,
    /// BagNet-33: receptive fields of 33x33 pixels, 8 pixels apart. Embedding 2048.
    BagNet33,
}

impl Architecture {
    /// All architectures.
    pub const ALL: [Self; 13] = [
        Self::ResNet18,
        Self::ResNet18Cifar,
        Self::ResNet18CifarPad2,
        Self::ResNet34,
        Self::ResNet34Cifar,
        Self::ResNet34CifarPad2,
        Self::ResNet50,
        Self::ResNet50Cifar,
        Self::ResNet50CifarPad2,
        Self::ResNetSmall,
        Self::BagNet9,
        Self::BagNet17,
        Self::BagNet33,
    ];

    /// Returns the name in configs and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResNet18 => "resnet18",
            Self::ResNet18Cifar => "resnet18-cifar",
            Self::ResNet18CifarPad2 => "resnet18-cifar-pad2",
            Self::ResNet34 => "resnet34",
            Self::ResNet34Cifar => "resnet34-cifar",
            Self::ResNet34CifarPad2 => "resnet34-cifar-pad2",
            Self::ResNet50 => "resnet50",
            Self::ResNet50Cifar => "resnet50-cifar",
            Self::ResNet50CifarPad2 => "resnet50-cifar-pad2",
            Self::ResNetSmall => "resnet-small",
            Self::BagNet9 => "bagnet9",
            Self::BagNet17 => "bagnet17",
            Self::BagNet33 => "bagnet33",
        }
    }

    /// Returns the plan of the encoder, from RGB maps to embeddings.
    pub fn plan(self) -> Plan {
        let (block, blocks, width): (_, &[usize], _) = match self {
            Self::BagNet9 => return bagnet(2),
            Self::BagNet17 => return bagnet(3),
            Self::BagNet33 => return bagnet(4),
            Self::ResNet18 | Self::ResNet18Cifar | Self::ResNet18CifarPad2 => (Block::Basic, &[2, 2, 2, 2], 64),
            Self::ResNet34 | Self::ResNet34Cifar | Self::ResNet34CifarPad2 => (Block::Basic, &[3, 4, 6, 3], 64),
            Self::ResNet50 | Self::ResNet50Cifar | Self::ResNet50CifarPad2 => (Block::Bottleneck, &[3, 4, 6, 3], 64),
            Self::ResNetSmall => (Block::Basic, &[1, 1, 1], 16),
        };
        let stem = match self {
            Self::ResNet18 | Self::ResNet34 | Self::ResNet50 => Stem::ImageNet,
            Self::ResNet18CifarPad2 | Self::ResNet34CifarPad2 | Self::ResNet50CifarPad2 => Stem::Small(2),
            _ => Stem::Small(1),
        };
        resnet(stem, block, blocks, width)
    }
}

impl core::str::FromStr for Architecture {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| Error::Setting {
            name: "arch",
            expected: "one of resnet18, resnet34, resnet50 (each also with -cifar or -cifar-pad2), resnet-small, bagnet9, \
                       bagnet17 and bagnet33",
            got: format!("{name:?}"),
        })
    }
}

impl TryFrom<String> for Architecture {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

impl From<Architecture> for String {
    fn from(architecture: Architecture) -> Self {
        architecture.name().into()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Stem {
    ImageNet,
    /// With this padding.
    Small(usize),
}

#[derive(Clone, Copy, PartialEq)]
enum Block {
    Basic,
    Bottleneck,
}

fn resnet(stem: Stem, block: Block, blocks: &[usize], width: usize) -> Plan {
    let mut net = Layers::default();
    let mut value = match stem {
        Stem::ImageNet => {
            let value = net.conv("conv1", "bn1", (0, 3), width, Window::square(7, 2, 3), None, true);
            net.add(value, Op::MaxPool { window: Window::square(3, 2, 1) })
        }
        Stem::Small(padding) => net.conv("conv1", "bn1", (0, 3), width, Window::square(3, 1, padding), None, true),
    };
    let mut channels = width;
    for (stage, &count) in blocks.iter().enumerate() {
        for index in 0..count {
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            let name = format!("layer{}.{index}", stage + 1);
            (value, channels) = net.block(block, &name, (value, channels), width << stage, stride);
        }
    }
    net.add(value, Op::GlobalMean);
    Plan::new(Kind::Map(3), net.0).expect("a residual network is consistent")
}

/// A BagNet: bottlenecks without padding. The first block of each of the first `wide` stages has a
/// 3x3 kernel, all others have 1x1 kernels.
///
/// # Source
/// Brendel, Bethge, *Approximating CNNs with Bag-of-local-Features models works surprisingly well
/// on ImageNet*, ICLR 2019. The original has a 1x1 convolution before the first 3x3 one without a
/// nonlinearity in between; here they are merged into one.
fn bagnet(wide: usize) -> Plan {
    let mut net = Layers::default();
    let mut value = (net.conv("conv1", "bn1", (0, 3), 64, Window::square(3, 1, 0), None, true), 64);
    for (stage, (count, stride)) in [(3, 2), (4, 2), (6, 2), (3, 1)].into_iter().enumerate() {
        for index in 0..count {
            let (kernel, stride) = if index == 0 { (if stage < wide { 3 } else { 1 }, stride) } else { (1, 1) };
            let windows = [Window::square(1, 1, 0), Window::square(kernel, stride, 0), Window::square(1, 1, 0)];
            let width = 64 << stage;
            value = net.residual(&format!("layer{}.{index}", stage + 1), value, width, 4 * width, stride, &windows);
        }
    }
    net.add(value.0, Op::GlobalMean);
    Plan::new(Kind::Map(3), net.0).expect("a BagNet is consistent")
}

#[derive(Default)]
struct Layers(Vec<Layer>);

impl Layers {
    fn add(&mut self, input: usize, op: Op) -> usize {
        self.0.push(Layer { input, op });
        self.0.len()
    }

    #[allow(clippy::too_many_arguments, reason = "a private shorthand for one variant's fields")]
    fn conv(
        &mut self,
        conv: &str,
        norm: &str,
        (input, inputs): (usize, usize),
        outputs: usize,
        window: Window,
        residual: Option<usize>,
        relu: bool,
    ) -> usize {
        let (conv, norm) = (conv.into(), norm.into());
        self.add(input, Op::ConvNorm { conv, norm, inputs, outputs, window, residual, relu })
    }

    /// Adds a residual block. Returns its value and channels.
    fn block(
        &mut self,
        block: Block,
        name: &str,
        value: (usize, usize),
        width: usize,
        stride: usize,
    ) -> (usize, usize) {
        match block {
            Block::Basic => {
                let windows = [Window::square(3, stride, 1), Window::square(3, 1, 1)];
                self.residual(name, value, width, width, stride, &windows)
            }
            Block::Bottleneck => {
                let windows = [Window::square(1, 1, 0), Window::square(3, stride, 1), Window::square(1, 1, 0)];
                self.residual(name, value, width, 4 * width, stride, &windows)
            }
        }
    }

    /// Adds consecutive convolutions with a shortcut past them. All but the last have `width`
    /// channels. The shortcut is a convolution if the size or the channels change. Returns the
    /// block's value and channels.
    fn residual(
        &mut self,
        name: &str,
        (input, inputs): (usize, usize),
        width: usize,
        outputs: usize,
        stride: usize,
        windows: &[Window],
    ) -> (usize, usize) {
        let shortcut = if stride == 1 && inputs == outputs {
            input
        } else {
            let (conv, norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
            self.conv(&conv, &norm, (input, inputs), outputs, Window::square(1, stride, 0), None, false)
        };
        let mut value = (input, inputs);
        for (index, &window) in windows.iter().enumerate() {
            let last = index + 1 == windows.len();
            let channels = if last { outputs } else { width };
            let (conv, norm) = (format!("{name}.conv{}", index + 1), format!("{name}.bn{}", index + 1));
            let residual = last.then_some(shortcut);
            value = (self.conv(&conv, &norm, value, channels, window, residual, true), channels);
        }
        value
    }
}

/// Returns the plan of a projector: linear layers of the given sizes, each but the last with batch
/// norm and ReLU. Names are numbered as in a PyTorch `Sequential` of linear, norm and ReLU:
/// `0.weight`, `1.weight`, `3.weight`..
///
/// # Errors
/// [`Error::Plan`] if `sizes` is empty or a size is out of range.
///
/// # Example
/// ```
/// use bagssl_core::architecture::mlp;
/// let names: Vec<_> = mlp(64, &[128, 32])?.parameters().into_iter().map(|p| p.name).collect();
/// assert_eq!(names[..2], ["0.weight", "1.weight"]);
/// assert_eq!(names[5..], ["3.weight", "3.bias"]);
/// # Ok::<(), bagssl_core::Error>(())
/// ```
pub fn mlp(inputs: usize, sizes: &[usize]) -> Result<Plan> {
    let mut layers = Vec::new();
    let mut dim = inputs;
    for (index, &outputs) in sizes.iter().enumerate() {
        let last = index + 1 == sizes.len();
        let op = Op::Linear {
            name: format!("{}", 3 * index),
            inputs: dim,
            outputs,
            bias: last,
            norm: (!last).then(|| format!("{}", 3 * index + 1)),
            relu: !last,
        };
        layers.push(Layer { input: index, op });
        dim = outputs;
    }
    Plan::new(Kind::Rows(inputs), layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torchvision's counts without `fc` (11,689,512 - 513,000 for ResNet-18, etc.).
    #[test]
    fn parameter_counts_match_torchvision() {
        let trained = |architecture: Architecture| -> usize {
            architecture.plan().parameters().iter().filter(|p| p.role.is_trained()).map(|p| p.len()).sum()
        };
        assert_eq!(trained(Architecture::ResNet18), 11_176_512);
        assert_eq!(trained(Architecture::ResNet34), 21_284_672);
        assert_eq!(trained(Architecture::ResNet50), 23_508_032);
        assert_eq!(trained(Architecture::ResNet18Cifar), 11_168_832);
    }

    /// The published 0.56 GMAC for a 32x32 patch, and 1.81 GMAC (4.09 for ResNet-50) for 224x224
    /// without `fc`. The small network by hand: 110,592 + 2 * 589,824 + 2 * (294,912 + 589,824 +
    /// 32,768).
    #[test]
    fn operation_counts_match_publications() {
        let count = |architecture: Architecture, side| architecture.plan().multiply_accumulates([side; 2]).unwrap();
        assert_eq!(count(Architecture::ResNet18Cifar, 32), 555_417_600);
        assert_eq!(count(Architecture::ResNet18, 224), 1_813_561_344);
        assert_eq!(count(Architecture::ResNet50, 224), 4_087_136_256);
        assert_eq!(count(Architecture::ResNetSmall, 16), 3_125_248);
    }

    /// solo-learn pads the small stem by 2, so its maps of a 32x32 patch have sides 34, 17, 9 and
    /// 5.
    #[test]
    fn solo_learn_stem_pads_by_2() {
        let pairs = [
            (Architecture::ResNet18Cifar, Architecture::ResNet18CifarPad2),
            (Architecture::ResNet34Cifar, Architecture::ResNet34CifarPad2),
            (Architecture::ResNet50Cifar, Architecture::ResNet50CifarPad2),
        ];
        for (usual, padded) in pairs.map(|(usual, padded)| (usual.plan(), padded.plan())) {
            let sizes = |plan: &Plan| plan.sizes([32, 32]).unwrap();
            assert_eq!((sizes(&usual)[1], sizes(&padded)[1]), ([32, 32], [34, 34]));
            assert_eq!(sizes(&padded)[padded.layers().len() - 1], [5, 5]);
            assert_eq!((usual.parameters(), &usual.layers()[1..]), (padded.parameters(), &padded.layers()[1..]));
        }
    }

    /// The receptive fields match the names. 224x224 pixels contain 24x24 patches of 33x33 pixels.
    #[test]
    fn bagnet_receptive_field_matches_name() {
        for (bagnet, side) in [(Architecture::BagNet9, 9), (Architecture::BagNet17, 17), (Architecture::BagNet33, 33)] {
            let plan = bagnet.plan();
            let field = plan.receptive_field().unwrap();
            assert_eq!((field.side, field.stride), (side, 8));
            assert_eq!(plan.sizes([side, side]).unwrap()[plan.layers().len() - 1], [1, 1]);
        }
        let plan = Architecture::BagNet33.plan();
        assert_eq!(plan.sizes([224, 224]).unwrap()[plan.layers().len() - 1], [24, 24]);
        assert!(Architecture::ResNet18.plan().receptive_field().is_err());
    }

    #[test]
    fn architecture_names_round_trip() {
        for architecture in Architecture::ALL {
            assert_eq!(architecture.name().parse::<Architecture>().unwrap(), architecture);
        }
        assert!("resnet19".parse::<Architecture>().is_err());
    }

    #[test]
    fn mlp_without_layers_is_refused() {
        assert!(mlp(4, &[]).is_err());
        assert!(mlp(4, &[8, 0]).is_err());
    }
}
