"""Reference networks for the demo, the labs and the reproductions.

`digits_net`, `lenet`, `lenet_twn`, `few_bit_nets`, `caffe_cifar`, `vgg_cifar`, `resnet_cifar`, `mobilenet_v1`,
`mobilenet_v2`, `squeezenet`, `shufflenet_v2`, `transformer`, `char_gpt`, `llama` (these three over `attention`); found
by name in `registry`. `training` trains them in float, `stand_in` makes inputs up where there is no data.
"""
