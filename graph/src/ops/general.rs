//! Operators of the default domain that tract lacks, or computes otherwise than ONNX says.
//!
//! Each is a kernel of its own, one family a file; what they share is in [`kernel`].

mod attention;
mod body;
mod columns;
mod copies;
mod cumulative;
mod deform;
mod flex;
mod grid;
mod kernel;
mod linear;
mod linear_attention;
mod loops;
mod ngrams;
mod one_hot;
mod own;
mod pooling;
mod real;
mod regions;
mod strings;
mod unique;
mod window;

use tract_onnx::model::OnnxOpRegister;

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("AffineGrid", grid::affine_grid);
    operators.insert("Attention", attention::attention);
    operators.insert("BitCast", copies::bit_cast);
    operators.insert("CausalConvWithState", linear_attention::causal_conv);
    operators.insert("CenterCropPad", copies::center_crop_pad);
    operators.insert("Col2Im", columns::col2im);
    operators.insert("CumProd", cumulative::cum_prod);
    operators.insert("DeformConv", deform::deform_conv);
    operators.insert("Det", linear::det);
    operators.insert("FlexAttention", flex::flex_attention);
    operators.insert("GridSample", grid::grid_sample);
    operators.insert("LinearAttention", linear_attention::linear_attention);
    operators.insert("Loop", loops::repeat);
    operators.insert("LpPool", pooling::lp_pool);
    operators.insert("MaxUnpool", pooling::max_unpool);
    operators.insert("OneHot", one_hot::one_hot);
    operators.insert("RegexFullMatch", strings::regex_full_match);
    operators.insert("ReverseSequence", copies::reverse_sequence);
    operators.insert("RoiAlign", regions::roi_align);
    operators.insert("StringConcat", strings::string_concat);
    operators.insert("StringNormalizer", strings::string_normalizer);
    operators.insert("StringSplit", strings::string_split);
    operators.insert("SwiGLU", linear::swi_glu);
    operators.insert("TensorScatter", copies::tensor_scatter);
    operators.insert("TfIdfVectorizer", ngrams::tf_idf_vectorizer);
    operators.insert("Unique", unique::unique);
    operators.insert("Upsample", grid::upsample);
}
